"""The plan of an instance, kept in a file so that it can be started again as it was.

A daemon that root has started runs as somebody else, and owns the directory that this file is in. Whatever
that user puts there, root must not run. So the file belongs to whoever started the daemon, is for nobody
else's eyes, and is believed only by the user that it belongs to.
"""

import os
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from tamed.errors import (
    CannotCreate,
    ConfigurationError,
    MissingInput,
    PermissionRefused,
    from_creation_error,
    from_os_error,
)
from tamed.runner._plan import Plan

__all__ = ["PlanFile", "kept_plan"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class PlanFile:
    """The file that a plan is kept in while its daemon runs.

    It is to belong to whoever started the daemon; after an upgrade, that is read from the file.
    """

    def __init__(self, plan: Plan) -> None:
        self._path = Path(plan.plan_file)
        # Whoever starts it again reads the files anew: secrets in them need not be in one more file.
        self._text = plan._replace(report=-1, reading=None).to_text()
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

    def tend(self) -> bool:
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
        """Remove the file. Only who holds the instance's pid file may."""
        with suppress(OSError):  # somebody has taken the directory away
            self._path.unlink()

    def _write(self) -> None:
        what = f"plan {self._path}"
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


def kept_plan(path: Path) -> Plan:
    """Read the plan that is kept in a file.

    Raises MissingInput if there is none, and PermissionRefused if it is not this user's own.
    """
    what = "cannot start it again"
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError as error:
        why = "it was not started by `tamed start`"
        raise MissingInput(what, why, "whoever started it has to") from error
    except OSError as error:
        raise from_os_error(f"{what}: {path}", error, "do it as the user who started it") from error
    with ExitStack() as opened:
        opened.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        is_regular = stat.S_ISREG(status.st_mode)
        if not is_regular or status.st_uid != os.geteuid() or status.st_nlink != 1:
            why = f"user {status.st_uid} started it" if is_regular else f"{path} is no regular file"
            raise PermissionRefused(what, why, "do it as that user, or stop it and start it yourself")
        with os.fdopen(descriptor, closefd=False) as file:
            text = file.read()
    try:
        return Plan.from_text(text)
    except ValueError as error:  # it was damaged: a disk was full, say
        remedy = "stop it, and start it as you did before"
        raise ConfigurationError(f"{what}: {path} cannot be read", str(error), remedy) from error
