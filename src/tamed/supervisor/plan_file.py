"""The file in which a plan is stored while its daemon runs, so that ``tamed restart`` can start it again.

It is in the instance's folder. If that folder belongs to the daemon's user, root stores the plan elsewhere:
root must not start a plan that another user could have written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tamed._os.proc import start_time_of
from tamed._os.trust import TO_CREATE, TO_READ
from tamed.errors import (
    CannotCreate,
    ConfigurationError,
    MissingInput,
    PermissionRefused,
    TamedError,
    from_creation_error,
    from_os_error,
)
from tamed.unix.rundir import RunDirectory, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from tamed.supervisor.plan import Plan
    from tamed.unix.rundir import Instance

__all__ = [
    "PlanFile",
    "forget_plan",
    "has_left_plan",
    "kept_plan",
    "left_plan",
    "plan_path",
    "restarting",
    "save_plan",
    "stopped_names",
    "stored_plan",
]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOTS = ".plans"  # not a valid name of an instance
_REMEDY = "stop it, and start it as you did before"


def plan_path(instance: Instance) -> Path:
    """Return the path of this user's plan of an instance: in its folder, unless root gave that away."""
    try:
        is_given_away = os.geteuid() == 0 != instance.directory.lstat().st_uid
    except OSError:
        is_given_away = False
    return _roots_path(instance) if is_given_away else instance.directory / f"{instance.name}.plan"


def forget_plan(instance: Instance) -> None:
    """Remove root's plan of an ended daemon, which could not remove it after it dropped root."""
    if os.geteuid() == 0 and not instance.is_running:
        _forget(_roots_path(instance))


def _forget(path: Path) -> None:
    """Remove a plan, and the folder if there is no other plan."""
    with suppress(OSError):
        path.unlink()
    with suppress(OSError):
        path.parent.rmdir()


def stored_plan(instance: Instance) -> str | None:
    """Return the text of the plan of an instance that runs, None if this user has not stored it."""
    try:
        return _own_text(plan_path(instance))
    except (TamedError, OSError):
        return None


def save_plan(instance: Instance, text: str) -> None:
    """Keep the plan of a stopped instance, for `tamed restart`; a failure is ignored."""
    with suppress(TamedError, OSError):
        _write(_roots_path(instance), text)


def has_left_plan(instance: Instance) -> bool:
    """Return whether an instance that is not running has a plan."""
    return any(_status_of(path) is not None for path in (plan_path(instance), _roots_path(instance)))


def left_plan(instance: Instance) -> Plan:
    """Read the plan of an instance that failed, was killed, or was stopped.

    Raises MissingInput if there is none, and PermissionRefused if another user could have written it.
    """
    path = plan_path(instance)
    return _read(path if _status_of(path) is not None else _roots_path(instance))


def stopped_names(directory: RunDirectory) -> list[str]:
    """Return the names of the instances whose plans were kept when they were stopped."""
    try:
        names = [path.stem for path in (directory.path / _ROOTS).iterdir() if path.suffix == ".plan"]
    except OSError:
        return []
    return sorted(name for name in names if is_name(name))


def _roots_path(instance: Instance) -> Path:
    return instance.directory.parent / _ROOTS / f"{instance.name}.plan"


@contextmanager
def restarting(instance: Instance, waiting: Callable[[str], object]) -> Iterator[None]:
    """Wait until no other process of this user restarts the instance, and make others wait for this one.

    ``waiting`` is called before it waits. Without the permission to lock, or space, it does not wait.
    """
    path = _lock_path(instance)
    try:
        descriptor = _locked(path, waiting)
    except (TamedError, OSError):
        yield
        return
    try:
        yield
    finally:
        _forget(path)
        os.close(descriptor)


def _lock_path(instance: Instance) -> Path:
    return _roots_path(instance).with_suffix(".lock")


def _locked(path: Path, waiting: Callable[[str], object]) -> int:
    """Open and lock a file that is removed by those who have locked it, see flock(2)."""
    how = fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        with suppress(FileNotFoundError), ExitStack() as opened:  # the file is removed by others
            descriptor = _opened(path, os.O_CREAT | TO_READ)
            opened.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, how)
            except BlockingIOError:
                waiting("a restart")
                how = fcntl.LOCK_EX
                fcntl.flock(descriptor, how)
            if os.path.samestat(path.lstat(), os.fstat(descriptor)):
                opened.pop_all()
                return descriptor


class PlanFile:
    """The file in which a plan is stored while its daemon runs.

    It belongs to the user who started the daemon. After an upgrade, that user is read from the file.
    """

    def __init__(self, plan: Plan) -> None:
        self._path = Path(plan.plan_file)
        self._text = plan.without_secrets._replace(report=-1, holder=_holder(os.getpid())).to_text()
        self._file = _status_of(self._path)
        self._is_kept = False
        if self._file is not None:
            self._owner = self._file.st_uid
        else:
            self._owner = 0 if plan.user else os.geteuid()

    @classmethod
    def write(cls, plan: Plan) -> Self:
        """Store a plan, and replace an old one. Raises CannotCreate or PermissionRefused."""
        file = cls(plan)
        file._owner = os.geteuid()
        file._write()
        return file

    def housekeep(self) -> bool:
        """Create the file again if it was removed; return whether it was.

        Raises as `write` does, and PermissionRefused if this process is not the file's owner any more.
        """
        found = _status_of(self._path)
        if found is not None and self._file is not None and os.path.samestat(found, self._file):
            return False
        if self._owner != os.geteuid():
            why = f"only user {self._owner}, who started the daemon, can write it"
            raise PermissionRefused(
                f"plan {self._path}", why, "`tamed restart` will not work; stop and start it"
            )
        self._write()
        return True

    def keep(self) -> None:
        """Keep the file when the daemon ends: it failed, and may be started again."""
        self._is_kept = True

    def remove(self) -> None:
        """Remove the file, unless it is kept. The caller must hold the instance's pid file.

        A plan of root stays if this process is not root any more: see `forget_plan`.
        """
        if self._is_kept:
            return
        with suppress(OSError):  # the directory is gone
            self._path.unlink()
        if self._path.parent.name == _ROOTS:
            with suppress(OSError):
                self._path.parent.rmdir()

    def _write(self) -> None:
        _write(self._path, self._text)
        if self._path.parent.name != _ROOTS:
            _forget(self._path.parent.parent / _ROOTS / self._path.name)  # left by an earlier stop
        self._file = _status_of(self._path)


def _write(path: Path, text: str) -> None:
    what = f"plan {path}"
    found = _status_of(path)
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise CannotCreate(what, "the path exists and is not a regular file", "remove it")
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(_opened(path, TO_CREATE), "w") as file:
            file.write(text)
    except OSError as error:
        raise from_creation_error(what, error) from error


def _opened(path: Path, flags: int) -> int:
    """Create a file. The folder of plans is made before, again if another process removes it just then."""
    while True:
        if path.parent.name == _ROOTS:
            RunDirectory(path.parent).make()
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            if path.parent.name != _ROOTS:
                raise


def _status_of(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def kept_plan(path: Path, pid: int) -> Plan:
    """Read the stored plan of process ``pid``.

    Raises MissingInput if there is none, and PermissionRefused if it does not belong to this user, or another
    user could have put it there.
    """
    plan = _read(path)
    if plan.holder != _holder(pid):
        raise PermissionRefused(_what(path), f"{path} is not the plan of process {pid}, which runs", _REMEDY)
    return plan


def _read(path: Path) -> Plan:
    try:
        text = _own_text(path)
    except FileNotFoundError as error:
        why = "it was not started by `tamed start`, or not by this user"
        raise MissingInput(_what(path), why, "run the command as the user who started it") from error
    except OSError as error:
        raise from_os_error(
            f"{_what(path)}: {path}", error, "run the command as the user who started it"
        ) from error
    from tamed.supervisor.plan import Plan  # lazy import: `tamed stop` reads no plan

    try:
        return Plan.from_text(text)
    except ValueError as error:  # damaged, for example because the disk was full
        raise ConfigurationError(f"{_what(path)}: {path} cannot be read", str(error), _REMEDY) from error


def _what(path: Path) -> str:
    return f"cannot start {path.stem} again"


def _holder(pid: int) -> str:
    """Return an identity of a process that no later process can have."""
    return f"{pid} begun at {start_time_of(pid)}"


def _own_text(path: Path) -> str:
    """Read a file of this user in a folder of this user in which no other user can write."""
    remedy = "run the command as that user, or stop and start the daemon yourself"
    with ExitStack() as opened:
        folder = os.open(path.parent, _FOLDER)
        opened.callback(os.close, folder)
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            why = f"user {status.st_uid}, or others, can write in {path.parent}"
            raise PermissionRefused(_what(path), why, remedy)
        descriptor = os.open(path.name, TO_READ, dir_fd=folder)
        opened.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if not status.st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # removed since
        is_regular = stat.S_ISREG(status.st_mode)
        if not is_regular or status.st_uid != os.geteuid() or status.st_nlink != 1:
            why = f"user {status.st_uid} started it" if is_regular else f"{path} is not a regular file"
            raise PermissionRefused(_what(path), why, remedy)
        with os.fdopen(descriptor, closefd=False) as file:
            return file.read()
