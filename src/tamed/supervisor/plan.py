"""A plan: all that the supervisor needs to know, as plain data, so that it can be handed over an exec."""

import json
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Self, get_args, get_origin

from tamed._os.proc import beginning_of
from tamed.errors import (
    CannotCreate,
    ConfigurationError,
    MissingInput,
    PermissionRefused,
    from_creation_error,
    from_os_error,
)
from tamed.ipc.message import InvalidMessage, Message, parse_message, read_object
from tamed.log.plan import LogPlan
from tamed.unix.rundir import Instance, RunDirectory

__all__ = ["Plan", "PlanFile", "forget_plan", "kept_plan", "plan_path"]


class Plan(NamedTuple):
    """What to run and how.

    ``job`` is what was given, and ``reading`` what its files said (see `Reading`; a plan that is kept for a
    restart has none): both are for the workers, and opaque to the supervisor. ``interpreter`` is the command
    that runs Python, for ``-m MODULE`` to follow. ``pid_file`` and ``control`` are the instance's,
    ``plan_file`` is where the plan is kept for a restart, ``default_log`` is where it logs unless the
    operator says, and ``second_pid_file`` is where the operator wants one more: paths, empty for none.

    ``folder`` is where the command was run, as the operator wrote it: whoever reads the job anew starts
    there. ``directory`` is the working directory of the workers, and ``worker_interpreter`` what runs them,
    wherever links led to when the job was read.

    ``interpreter_environ`` are variables, ``NAME=VALUE``, that an interpreter heeds: for the workers, and not
    for a supervisor that is root. ``prepare_as_root`` says that workers drop root when they are prepared, and
    not before they are executed.

    ``report`` is the descriptor of the pipe on which the command that started the daemon waits, -1 for none:
    it runs in the foreground. ``listen_pid`` is the process that systemd passed its sockets to, before it
    became another. ``holder`` is, in a plan that is kept, the process that runs by it (see `PlanFile`). Times
    are in seconds.
    """

    name: str
    job: dict[str, Any]
    interpreter: Sequence[str]
    reading: dict[str, Any] | None = None
    workers: int = 1
    preload: bool = False
    reload: bool = False
    log: LogPlan = LogPlan()
    pid_file: str = ""
    second_pid_file: str = ""
    control: str = ""
    plan_file: str = ""
    default_log: str = ""
    folder: str = ""
    directory: str = ""
    worker_interpreter: Sequence[str] = ()
    user: str = ""
    group: str = ""
    keep_capabilities: Sequence[str] = ()
    prepare_as_root: bool = False
    interpreter_environ: Sequence[str] = ()
    start_timeout: float = 60.0
    stop_timeout: float = 60.0
    umask: int = 0o027
    max_files: int | None = None
    max_worker_memory: int | None = None
    watchdog: float = 30.0
    report: int = -1
    listen_pid: int = 0
    holder: str = ""

    @property
    def heartbeat_interval(self) -> float:
        """How often a worker gives a sign of life, in seconds."""
        return self.watchdog / 4

    @property
    def first_order(self) -> dict[str, Any]:
        """What a worker or a template is told first: all that it is made from."""
        return {
            "job": self.job,
            "reading": self.reading,
            "layout": self.log.layout,
            "heartbeat": self.heartbeat_interval,
            "files": self.reload,
        }

    def hand_over(self) -> int:
        """Write the plan into an anonymous file; return its descriptor, which the next program inherits."""
        descriptor = os.memfd_create("tamed-plan", 0)
        with os.fdopen(os.dup(descriptor), "w") as file:
            file.write(self.to_text())
        return descriptor

    @classmethod
    def take_over(cls, descriptor: int) -> "Plan":
        """Read the plan that was handed over, and close its descriptor."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        with os.fdopen(descriptor) as file:
            return cls.from_text(file.read())

    def to_text(self) -> str:
        """Return the plan as JSON."""
        return json.dumps({**self._asdict(), "log": self.log._asdict()})

    @classmethod
    def from_text(cls, text: str) -> "Plan":
        """Return the plan that the text was made from.

        What another version has in its plans and this one does not know is passed over. Raises InvalidMessage
        for what is no plan.
        """
        data = parse_message(text.encode(errors="surrogatepass"))
        log = LogPlan(**_fields(LogPlan, read_object(data, "log")))
        try:
            return cls(**{**_fields(cls, data), "log": log})
        except TypeError as error:  # something is missing
            raise InvalidMessage(str(error)) from error


def _fields(kind: type[Plan] | type[LogPlan], data: Message) -> Message:
    """Return the fields of a tuple that are in the data. Raises InvalidMessage for one of another type."""
    known = {name: value for name, value in data.items() if name in kind._fields and name != "log"}
    for name, value in known.items():
        if not _is_of(value, kind.__annotations__[name]):
            raise InvalidMessage(f"{name}: not what a plan has there")
    return known


def _is_of(value: object, hint: Any) -> bool:
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if isinstance(hint, UnionType):
        return any(_is_of(value, each) for each in get_args(hint))
    kind = get_origin(hint) or hint
    if kind is Sequence:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return isinstance(value, kind)


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOTS = ".plans"  # which no instance can be called
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def plan_path(instance: Instance) -> Path:
    """Return where this user's plan of an instance is: in its folder, unless root has given that away."""
    try:
        is_given_away = os.geteuid() == 0 != instance.directory.lstat().st_uid
    except OSError:
        is_given_away = False
    return _roots_path(instance) if is_given_away else instance.directory / f"{instance.name}.plan"


def forget_plan(instance: Instance) -> None:
    """Remove the plan of root's that a daemon has left which had become another user, and has ended."""
    if os.geteuid() == 0 and not instance.is_running:
        path = _roots_path(instance)
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):  # there are others
            path.parent.rmdir()


def _roots_path(instance: Instance) -> Path:
    return instance.directory.parent / _ROOTS / f"{instance.name}.plan"


class PlanFile:
    """The file that a plan is kept in while its daemon runs.

    It is to belong to whoever started the daemon; after an upgrade, that is read from the file.
    """

    def __init__(self, plan: Plan) -> None:
        self._path = Path(plan.plan_file)
        # Whoever starts it again reads the files anew: secrets in them need not be in one more file.
        self._text = plan._replace(report=-1, reading=None, holder=_holder(os.getpid())).to_text()
        self._file = _status_of(self._path)
        if self._file is not None:
            self._owner = self._file.st_uid
        else:
            self._owner = 0 if plan.user else os.geteuid()

    @classmethod
    def write(cls, plan: Plan) -> Self:
        """Keep a plan, in the place of one that was left behind. Raises CannotCreate or PermissionRefused."""
        file = cls(plan)
        file._owner = os.geteuid()
        file._write()
        return file

    def housekeep(self) -> bool:
        """Make the file anew if it is gone; tell whether it was.

        Raises as `write` does, and PermissionRefused if this process is not the file's owner any more.
        """
        found = _status_of(self._path)
        if found is not None and self._file is not None and os.path.samestat(found, self._file):
            return False
        if self._owner != os.geteuid():
            why = f"only user {self._owner}, who started it, can write it"
            raise PermissionRefused(
                f"plan {self._path}", why, "`tamed restart` will not work; stop and start it"
            )
        self._write()
        return True

    def remove(self) -> None:
        """Remove the file. Only who holds the instance's pid file may.

        One that root has kept stays where this process is not root any more: see `forget_plan`.
        """
        with suppress(OSError):  # somebody has taken the directory away
            self._path.unlink()
        if self._path.parent.name == _ROOTS:
            with suppress(OSError):
                self._path.parent.rmdir()

    def _write(self) -> None:
        what = f"plan {self._path}"
        if self._path.parent.name == _ROOTS:
            RunDirectory(self._path.parent).make()
        found = _status_of(self._path)
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise CannotCreate(what, "something that is no regular file is in its place", "remove it")
        try:
            self._path.unlink(missing_ok=True)
            with os.fdopen(os.open(self._path, _NEW, 0o600), "w") as file:
                file.write(self._text)
        except OSError as error:
            raise from_creation_error(what, error) from error
        self._file = _status_of(self._path)


def _status_of(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def kept_plan(path: Path, pid: int) -> Plan:
    """Read the plan that is kept in a file, and that process ``pid`` runs by.

    Raises MissingInput if there is none, and PermissionRefused if it is not this user's own, or somebody else
    could have put it there.
    """
    try:
        text = _own_text(path)
    except FileNotFoundError as error:
        why = "it was not started by `tamed start`, or not by this user"
        raise MissingInput(_WHAT, why, "whoever started it has to") from error
    except OSError as error:
        raise from_os_error(f"{_WHAT}: {path}", error, "do it as the user who started it") from error
    remedy = "stop it, and start it as you did before"
    try:
        plan = Plan.from_text(text)
    except ValueError as error:  # it was damaged: a disk was full, say
        raise ConfigurationError(f"{_WHAT}: {path} cannot be read", str(error), remedy) from error
    if plan.holder != _holder(pid):
        raise PermissionRefused(_WHAT, f"{path} is not the plan of process {pid}, which runs", remedy)
    return plan


_WHAT = "cannot start it again"


def _holder(pid: int) -> str:
    """Name a process so that no later one has the same name."""
    return f"{pid} begun at {beginning_of(pid)}"


def _own_text(path: Path) -> str:
    """Read a file of this user's in a folder of this user's, where nobody else can write."""
    remedy = "do it as that user, or stop it and start it yourself"
    with ExitStack() as opened:
        folder = os.open(path.parent, _FOLDER)
        opened.callback(os.close, folder)
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            why = f"user {status.st_uid}, or others, can write in {path.parent}"
            raise PermissionRefused(_WHAT, why, remedy)
        descriptor = os.open(path.name, _READ, dir_fd=folder)
        opened.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        is_regular = stat.S_ISREG(status.st_mode)
        if not is_regular or status.st_uid != os.geteuid() or status.st_nlink != 1:
            why = f"user {status.st_uid} started it" if is_regular else f"{path} is no regular file"
            raise PermissionRefused(_WHAT, why, remedy)
        with os.fdopen(descriptor, closefd=False) as file:
            return file.read()
