"""The pid file: proof that an instance runs, by a lock; its content only says who it is.

What is believed is the lock, never the number: a file that was left behind, a pid that now belongs to a
stranger and a zombie hold no lock and block nobody.

How a pid file comes to be, so that nobody ever reads half of one and exactly one of many starts wins:

1. The process makes a file of its own beside the path, under a hidden name, writes its pid into it and
   takes both locks of it, *claim* and *life* (see ``_filelock``).
2. It links that file to the path. ``link(2)`` never replaces: the first one wins, and what appears is
   complete and locked. The content of a file that has had the name never changes.
3. If the name is taken by a file whose *life* is held, the other one runs. Otherwise that file is stale. It
   is removed by whoever gets its *claim* and sees, holding it, that the path still names it; a claim that
   is free on a file that no longer has the name is worth nothing. Then step 2 is tried again.

Since *life* is only ever taken on a file without the name, and stale files are removed under *claim*,
whoever finds *life* held and then reads a number reads the number that the holder wrote.

Rejected: writing into the file that is there, since readers then see old or half-written numbers, and
renaming over it, which lets two starts win.
"""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tamed.daemon._filelock import FileLock, lock_for
from tamed.daemon._holder import TO_READ, explain, holder_of, number_in
from tamed.errors import AlreadyRunning, SystemRefused, from_os_error

__all__ = ["PidFile"]

_ATTEMPTS = 2000
_PAUSE = 0.005  # seconds; others hold the claim of a stale file for microseconds
_MODE = 0o644  # anyone may ask who runs
_TO_CLEAR = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


class PidFile:
    """A pid file that this process holds. Made by :meth:`acquire` or :meth:`adopt`.

    The lock lives in :meth:`fileno`: it is held as long as any process has that open file. So a child that
    is not the daemon must not keep it: it is closed on exec, and a child that does not exec calls
    :meth:`close`. To keep it across an upgrade, make the descriptor inheritable just before the exec and
    :meth:`adopt` it after.

    As a context manager it calls :meth:`remove` at the end.
    """

    def __init__(self, path: Path, pid: int, descriptor: int, directory: int) -> None:
        self.path = path
        self.pid = pid
        self._descriptor = descriptor
        self._directory = directory  # the way to the name, which a chroot does not cut off

    @classmethod
    def acquire(
        cls,
        path: Path,
        *,
        lock: FileLock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Take the pid file for this process, which must have its final pid: after detaching, not before.

        Raises AlreadyRunning, which names the holder's pid, CannotCreate if the directory is missing, has
        no room or the path is no regular file, PermissionRefused, or SystemRefused if the file system has
        no locks or no hard links. ``lock`` and ``sleep`` are for tests.
        """
        directory = _open_directory(path)
        try:
            return cls(path, os.getpid(), _acquire(path, directory, lock, sleep), directory)
        except OSError as error:
            os.close(directory)
            raise explain(path, error) from error
        except BaseException:
            os.close(directory)
            raise

    @classmethod
    def adopt(cls, path: Path, descriptor: int) -> Self:
        """Go on with a pid file whose descriptor came through an exec.

        The descriptor is closed on exec from then on. Raises SystemRefused if it is not that of a pid file
        that this process holds; that the path names it no longer is no error, see :attr:`intact`.
        """
        try:
            os.set_inheritable(descriptor, False)
            pid = number_in(descriptor)
            if pid != os.getpid() or not lock_for(descriptor).take_life(descriptor):
                raise SystemRefused(
                    f"pid file {path}", f"descriptor {descriptor} is not that of this process"
                )
        except OSError as error:
            raise SystemRefused(f"pid file {path}", f"descriptor {descriptor}: {error.strerror}") from error
        return cls(path, pid, descriptor, _open_directory(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def fileno(self) -> int:
        """Return the descriptor that carries the lock."""
        return self._descriptor

    @property
    def intact(self) -> bool:
        """Whether the path still names this file: nobody removed or replaced it by hand."""
        return _names(self._directory, self.path.name, self._descriptor)

    def remove(self) -> bool:
        """Remove the file if it is still ours, and give the lock up; tell whether it was there to remove.

        In a forked child it only closes, like :meth:`close`. Raises PermissionRefused or SystemRefused if
        the name cannot be taken away; the lock is given up all the same, so that what is left blocks
        nobody. May be called again.
        """
        if self._descriptor < 0:
            return False
        try:
            if os.getpid() != self.pid or not self.intact:
                return False
            os.unlink(self.path.name, dir_fd=self._directory)
        except OSError as error:
            remedy = f"give {self.path.parent} to the user that the daemon runs as"
            raise from_os_error(f"cannot remove pid file {self.path}", error, remedy) from error
        else:
            return True
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file, which stays. So does the lock, if another process has the same open file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.close(self._directory)
            self._descriptor = self._directory = -1


def _acquire(path: Path, directory: int, lock: FileLock | None, sleep: Callable[[float], None]) -> int:
    _refuse_if_held(path, directory, lock)  # before anything is made: who may not write here learns who runs
    hidden = f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}"
    descriptor = os.open(hidden, _NEW, _MODE, dir_fd=directory)
    try:
        _prepare(descriptor, lock)
        _win_name(path, directory, hidden, lock, sleep)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        os.unlink(hidden, dir_fd=directory)
    return descriptor


def _win_name(
    path: Path, directory: int, hidden: str, lock: FileLock | None, sleep: Callable[[float], None]
) -> None:
    for _ in range(_ATTEMPTS):
        if _link(directory, hidden, path.name):
            return
        _refuse_if_held(path, directory, lock)
        if not _clear_stale(directory, path.name, lock):
            sleep(_PAUSE)
    raise AlreadyRunning(f"pid file {path}", "another start has been busy with it for 10 s", "try again")


def _prepare(descriptor: int, lock: FileLock | None) -> None:
    os.fchmod(descriptor, _MODE)  # whatever the umask
    line = b"%d\n" % os.getpid()
    if os.write(descriptor, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    (lock or lock_for(descriptor)).take_life(descriptor)


def _link(directory: int, hidden: str, name: str) -> bool:
    try:
        os.link(hidden, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP):
            raise OSError(errno.EOPNOTSUPP, "the file system has no hard links") from error
        raise
    return True


def _refuse_if_held(path: Path, directory: int, lock: FileLock | None) -> None:
    try:
        descriptor = os.open(path.name, TO_READ, dir_fd=directory)
    except FileNotFoundError:
        return
    try:
        pid = holder_of(path, descriptor, lock)
    except SystemRefused as error:
        raise AlreadyRunning(error.what, error.why, error.remedy) from error
    finally:
        os.close(descriptor)
    if pid is not None:
        raise AlreadyRunning(f"pid file {path}", f"process {pid} runs and holds it", "stop it first")


def _clear_stale(directory: int, name: str, lock: FileLock | None) -> bool:
    """Remove a file that nobody holds; tell whether the name may be free now."""
    try:
        descriptor = os.open(name, _TO_CLEAR, dir_fd=directory)
    except FileNotFoundError:
        return True
    try:
        if not (lock or lock_for(descriptor)).take_claim(descriptor):
            return False
        # Nobody holds life either: it is only taken together with the claim.
        if _names(directory, name, descriptor):
            os.unlink(name, dir_fd=directory)
        return True
    finally:
        os.close(descriptor)


def _names(directory: int, name: str, descriptor: int) -> bool:
    try:
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _open_directory(path: Path) -> int:
    try:
        return os.open(path.parent, _DIRECTORY)
    except OSError as error:
        raise explain(path, error) from error
