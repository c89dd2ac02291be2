"""The pid file: its lock is the proof that an instance runs, and its content is only the pid.

The lock decides, never the number: a file that was left behind, a pid that another process has now, and a
zombie have no lock, and do not prevent a start.

A pid file is created in these steps, so that no reader sees half of one and exactly one of many starts wins:

1. The process creates a file beside the path, under a hidden name, writes its pid into it and locks *life*
   (see ``lock.py``).
2. It links that file to the path. ``link(2)`` never replaces a file: the first process wins, and the file is
   complete and locked when it appears. Its content never changes after that.
3. If the path exists and its *life* is locked, the other instance runs. Otherwise that file is stale. A
   process that removes it first locks *claim* of another file, which exists only for that, and checks under
   that lock that the path is still the stale file. Then step 2 is tried again.

Any process that may open a file may lock it, for reading at least, and so prevent others from locking it.
Every user may read a pid file. So *life* is locked before the file becomes readable for all, and the file for
*claim* is readable for its user only.

Because *life* is only locked on a file that is not at the path yet, and stale files are removed under
*claim*, a process that finds *life* locked and then reads the number reads the holder's number.

The name is protected by a guard too, which no other process can remove (see `Guard`). So if the file is
removed while its process runs, no other instance can start, and :meth:`PidFile.housekeep` creates it again.

Rejected: writing into the existing file, because readers see old or half-written numbers; and renaming over
it, which lets two starts win.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tamed._os.fork import own
from tamed._os.identity import Identity, acting_for
from tamed._os.trust import TO_READ
from tamed.errors import AlreadyRunning, CannotCreate, SystemRefused, TamedError, from_os_error
from tamed.unix.lock import (
    Guard,
    explain,
    guardian,
    holder_of,
    is_alive,
    number_in,
    take_claim,
    take_life,
)

__all__ = ["PidFile", "check_replaceable"]

_ATTEMPTS = 2000
_PAUSE = 0.005  # seconds; another process has the claim of a stale file for microseconds
_MODE = 0o644  # every user may see which process runs
_TO_CLAIM = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class PidFile:
    """A pid file that this process holds. Created by :meth:`acquire` or :meth:`adopt`.

    The lock belongs to the open file of :meth:`fileno`: it lasts as long as any process has that open. So a
    child that is not the daemon must not keep it: it is closed on exec, and a child without an exec calls
    :meth:`close`. To keep it across an upgrade, make the descriptor inheritable just before the exec; the
    next program calls :meth:`adopt`.

    As a context manager it calls :meth:`remove` at the end, which closes ``guard`` too. ``owner`` is the user
    who owns the file; while this process is root, it accesses the file as that user.
    """

    def __init__(self, path: Path, descriptor: int, directory: int, guard: Guard | None) -> None:
        self.path = path
        self.pid = os.getpid()
        self.guard = guard
        self._owner: Identity | None = None
        self._descriptor = descriptor
        self._directory = directory  # open, so that the file is reachable after a chroot
        self._root = Path("/").stat()
        own(self)

    @classmethod
    def acquire(
        cls,
        path: Path,
        *,
        owner: Identity | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Create the pid file for this process, which must have its final pid: after detaching, not before.

        Raises AlreadyRunning with the holder's pid, CannotCreate if the directory is missing or full or the
        path is not a regular file, PermissionRefused, or SystemRefused if the file system has no locks or no
        hard links. ``owner`` is the user that the process becomes, and that removes the file. ``sleep`` is
        for tests.
        """
        with ExitStack() as undo:
            try:
                with acting_for(owner):
                    directory = _open_directory(path)
                    undo.callback(os.close, directory)
                    # Reports a running instance also without write permission.
                    _refuse_if_held(path, directory)
                guard = _take_guard(path)
                if guard is not None:
                    undo.callback(guard.close)
                with acting_for(owner):
                    descriptor = _acquire(path, directory, sleep)
            except OSError as error:
                raise explain(path, error) from error
            undo.pop_all()
            held = cls(path, descriptor, directory, guard)
            held._owner = owner
            return held

    @classmethod
    def adopt(cls, path: Path, descriptor: int, guard: int = -1) -> Self:
        """Create a PidFile from descriptors kept across an exec: of the file, and of its guard if it has one.

        They are closed on exec from then on. Raises SystemRefused if the descriptor is not that of a pid file
        that this process holds. It is no error if the path is another file now: see :attr:`intact`.
        """
        try:
            os.set_inheritable(descriptor, False)
            pid = number_in(descriptor)
            if pid != os.getpid() or not take_life(descriptor):
                raise SystemRefused(
                    f"pid file {path}", f"descriptor {descriptor} is not that of this process"
                )
        except OSError as error:
            raise SystemRefused(f"pid file {path}", f"descriptor {descriptor}: {error.strerror}") from error
        kept = Guard.take(path) if guard < 0 else Guard.adopt(guard)
        try:
            directory = _open_directory(path)
        except TamedError:
            directory = -1  # it was removed; it may be created again
        return cls(path, descriptor, directory, kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def fileno(self) -> int:
        """Return the descriptor that has the lock."""
        return self._descriptor

    def export(self, keep: Callable[[int], int]) -> dict[str, int]:
        """Return the arguments of :meth:`adopt` in the next program; ``keep`` keeps a descriptor open."""
        return {
            "descriptor": keep(self._descriptor),
            "guard": -1 if self.guard is None else keep(self.guard.fileno()),
        }

    @property
    def intact(self) -> bool:
        """Whether the path is still this file: it was not removed or replaced."""
        return self._directory >= 0 and _names(self._directory, self.path.name, self._descriptor)

    def housekeep(self) -> bool:
        """Do the periodic work, about once a second; return whether the file was missing and created again.

        Raises as :meth:`acquire` does if it cannot be created again, for example without its directory.
        """
        if self.guard is not None:
            self.guard.housekeep()
        if self._is_in_place():
            return False
        try:
            with acting_for(self._owner), ExitStack() as undo:
                directory = _open_directory(self.path)
                undo.callback(os.close, directory)
                descriptor = _acquire(self.path, directory, time.sleep)
                undo.pop_all()
        except OSError as error:
            raise explain(self.path, error) from error
        self._close_files()
        self._descriptor, self._directory = descriptor, directory
        return True

    def _is_in_place(self) -> bool:
        """Return whether the path is this file; also true if that cannot be checked, as after a chroot."""
        try:
            if not os.path.samestat(self._root, Path("/").stat()):
                return True
            return os.path.samestat(self.path.lstat(), os.fstat(self._descriptor))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def remove(self) -> bool:
        """Remove the file if it is still ours, and release the lock; return whether it was removed.

        In a forked child it only closes, like :meth:`close`. Raises PermissionRefused or SystemRefused if
        the file cannot be removed; the lock is released anyway, so that the file does not prevent a start.
        Idempotent.
        """
        if self._descriptor < 0:
            return False
        try:
            if os.getpid() != self.pid or not self.intact:
                return False
            with acting_for(self._owner):
                os.unlink(self.path.name, dir_fd=self._directory)
        except OSError as error:
            remedy = f"chown {self.path.parent} to the daemon's user"
            raise from_os_error(f"cannot remove pid file {self.path}", error, remedy) from error
        else:
            return True
        finally:
            self.close()

    def disown(self) -> None:
        """In a forked child: leave the file and its lock to the parent; see `tamed._os.fork`."""
        self.close()

    def close(self) -> None:
        """Close the file, which stays. The lock stays too if another process has the same open file."""
        if self._descriptor >= 0:
            self._close_files()
            if self.guard is not None:
                self.guard.close()

    def _close_files(self) -> None:
        os.close(self._descriptor)
        if self._directory >= 0:
            os.close(self._directory)
        self._descriptor = self._directory = -1


def check_replaceable(path: Path) -> None:
    """Raise CannotCreate if the file contains something other than a pid, which would be lost.

    For a path that an operator has specified. In an instance's own folder, any stale file is replaced.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return  # the opening of a named pipe would wait for a writer
        with path.open("rb") as file:
            content = file.read(64)
    except OSError:  # there is none, or `PidFile.acquire` reports why it is no pid file
        return
    if (word := content.strip(b"\0\n\r\t ")) and not word.lstrip(b"-").isdigit():
        why = "it contains something other than a pid, which would be lost"
        raise CannotCreate(f"pid file {path}", why, "use another file")


def _acquire(path: Path, directory: int, sleep: Callable[[float], None]) -> int:
    hidden = f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}"
    descriptor = os.open(hidden, _NEW, 0o600, dir_fd=directory)
    try:
        _prepare(descriptor)
        _win_name(path, directory, hidden, sleep)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        os.unlink(hidden, dir_fd=directory)
    return descriptor


def _take_guard(path: Path) -> Guard | None:
    pid = guardian(path)
    guard = Guard.take(path) if pid is None else None
    if guard is None and pid is None:
        pid = guardian(path)  # another start was first, or an untrusted process has the name
    if pid is not None:
        raise AlreadyRunning(
            f"pid file {path}", f"process {pid} runs, although its file is missing", "stop it first"
        )
    return guard


def _win_name(path: Path, directory: int, hidden: str, sleep: Callable[[float], None]) -> None:
    for _ in range(_ATTEMPTS):
        if _link(directory, hidden, path.name):
            return
        _refuse_if_held(path, directory)
        if not _clear_stale(directory, path.name):
            sleep(_PAUSE)
    raise AlreadyRunning(f"pid file {path}", "another start has held it for 10 s", "try again")


def _prepare(descriptor: int) -> None:
    line = b"%d\n" % os.getpid()
    if os.write(descriptor, line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    take_life(descriptor)
    os.fchmod(descriptor, _MODE)  # regardless of the umask


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


def _refuse_if_held(path: Path, directory: int) -> None:
    try:
        descriptor = os.open(path.name, TO_READ, dir_fd=directory)
    except FileNotFoundError:
        return
    try:
        pid = holder_of(path, descriptor)
    except SystemRefused as error:
        raise AlreadyRunning(error.what, error.why, error.remedy) from error
    finally:
        os.close(descriptor)
    if pid is not None:
        raise AlreadyRunning(f"pid file {path}", f"process {pid} runs and holds it", "stop it first")


def _clear_stale(directory: int, name: str) -> bool:
    """Remove a file that no process holds; return whether the name may be free now."""
    claim = f".{name}.claim"
    claimed = os.open(claim, _TO_CLAIM, 0o600, dir_fd=directory)
    try:
        if not take_claim(claimed) or not _names(directory, claim, claimed):
            return False
        try:
            _remove_stale(directory, name)
        finally:
            os.unlink(claim, dir_fd=directory)
        return True
    finally:
        os.close(claimed)


def _remove_stale(directory: int, name: str) -> None:
    try:
        descriptor = os.open(name, TO_READ, dir_fd=directory)
    except FileNotFoundError:
        return
    try:
        if not is_alive(descriptor) and _names(directory, name, descriptor):
            os.unlink(name, dir_fd=directory)
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
