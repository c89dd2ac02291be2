"""Who holds a pid file: asked of the lock and of the kernel, not of the number alone.

See ``_pidfile`` for how the file comes to be. Here is what any process may ask about it.
"""

import errno
import os
import stat
from pathlib import Path

from tamed.daemon._filelock import is_alive
from tamed.daemon._guard import guardian
from tamed.errors import CannotCreate, PermissionRefused, SystemRefused, TamedError, from_creation_error

__all__ = ["TO_READ", "explain", "holder", "holder_of", "number_in"]

# Never through a symbolic link, and never waiting for the other end of a pipe that somebody put there.
TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def holder(path: Path) -> int | None:
    """Return the pid of the process that holds a pid file, or None if nobody does.

    The file may be missing, stale, or empty: whoever holds it keeps its name too (see ``_guard``). Nothing is
    locked, and any user who can read the file may ask. Where the kernel lets this process see the holder's
    open files, the holder is believed only if the file is among them: who owns the directory could have
    written anything into the file.

    Raises PermissionRefused if the file cannot be read, CannotCreate if it is no regular file, and
    SystemRefused if it is held, but not by the process that it names.
    """
    try:
        descriptor = os.open(path, TO_READ)
    except (FileNotFoundError, NotADirectoryError):
        return guardian(path)
    except OSError as error:
        raise explain(path, error) from error
    try:
        pid = holder_of(path, descriptor)
        return guardian(path) if pid is None else pid
    except OSError as error:
        raise explain(path, error) from error
    finally:
        os.close(descriptor)


def holder_of(path: Path, descriptor: int) -> int | None:
    """Do what :func:`holder` does, for an open file; ``OSError`` comes through."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise CannotCreate(
            f"pid file {path}", "there is something that is no regular file", "remove it, or name another"
        )
    if not is_alive(descriptor):
        return None
    pid = number_in(descriptor)
    if pid is not None and _may_have_open(pid, os.fstat(descriptor)):
        return pid
    if not is_alive(descriptor):
        return None  # it ended while we looked
    told = "it names nobody" if pid is None else f"not by process {pid}, which it names"
    raise SystemRefused(
        f"pid file {path}", f"it is held, but {told}", f"see who has it open: fuser -v {path}"
    )


def number_in(descriptor: int) -> int | None:
    """Return the pid on the first line of an open pid file, or None if there is none."""
    number = os.pread(descriptor, 32, 0).partition(b"\n")[0]
    return int(number) or None if number.isdigit() else None


def _may_have_open(pid: int, file: os.stat_result) -> bool:
    """Tell whether a process has a file open, as far as this one may see; true when it may not."""
    try:
        opened = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return not Path("/proc/self/fd").exists() or _is_hidden(pid)
    except OSError:
        return True
    return any(_is_same(link, file) for link in opened)


def _is_hidden(pid: int) -> bool:
    """Tell whether a process that ``/proc`` does not show exists after all: proc(5), ``hidepid``."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_same(link: Path, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(link.stat(), file)
    except OSError:
        return False  # closed in the meantime


def explain(path: Path, error: OSError) -> TamedError:
    """Turn what the system said about a pid file into the error that tells what to do about it."""
    what, why = f"pid file {path}", error.strerror or ""
    if error.errno == errno.ELOOP:
        return CannotCreate(what, "it is a symbolic link", "remove the link")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return CannotCreate(
            what, f"there is no directory {path.parent}", "make it, or name another run directory"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionRefused(
            what, why, "run as a user who may write there, or name another run directory"
        )
    if error.errno == errno.ENXIO:
        return CannotCreate(what, "there is something that is no regular file", "remove it, or name another")
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
        return SystemRefused(what, why, "name a run directory on a local file system")
    return from_creation_error(what, error, "name another run directory")
