"""The plan of an instance, kept in a file so that it can be started again as it was.

A daemon that root has started runs as somebody else, and owns the directory that this file is in. Whatever
that user puts there, root must not run. So the file belongs to whoever started the daemon, is for nobody
else's eyes, and is believed only by the user that it belongs to.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tamed.errors import ConfigurationError, MissingInput, PermissionRefused, from_os_error
from tamed.runner._plan import Plan

__all__ = ["held_plan_file", "kept_plan", "removed_plan_file"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def held_plan_file(plan: Plan) -> Iterator[None]:
    """Keep a plan in its file inside the ``with``, in the place of one that was left behind."""
    path = Path(plan.plan_file)
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, _NEW, 0o600), "w") as file:
            file.write(plan._replace(report=-1).to_text())
    except OSError as error:
        raise from_os_error(f"cannot write {path}", error) from error
    with removed_plan_file(plan):
        yield


@contextmanager
def removed_plan_file(plan: Plan) -> Iterator[None]:
    """Remove a plan's file at the end of the ``with``."""
    try:
        yield
    finally:
        with suppress(OSError):  # somebody has taken the directory away
            Path(plan.plan_file).unlink()


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
    with os.fdopen(descriptor) as file:
        status = os.fstat(descriptor)
        is_own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
        if not is_own:
            why = f"user {status.st_uid} started it"
            raise PermissionRefused(what, why, "do it as that user, or stop it and start it yourself")
        try:
            return Plan.from_text(file.read())
        except ValueError as error:  # it was damaged: a disk was full, say
            remedy = "stop it, and start it as you did before"
            raise ConfigurationError(f"{what}: {path} cannot be read", str(error), remedy) from error
