"""Locks on an open file: held by whoever has the file open, and gone with the last of them.

A pid file's lock must survive a fork, since the daemon is a child of the process that was started, and an
exec, since an upgrade replaces the program; and it must be gone with ``kill -9``. Of the three kinds of
locks:

- POSIX record locks (``F_SETLK``) belong to the process: a fork loses them, and so does closing any
  other descriptor of the same file. They cannot be used.
- Open file description locks (``F_OFD_SETLK``, Linux 3.15, fcntl(2)) belong to the open file. They can be
  asked about (``F_OFD_GETLK``) without being taken for a moment, so looking never disturbs, and they cover
  ranges, so one file can carry two locks: *claim* and *life*, see ``_pidfile``. They are what we use.
- ``flock(2)`` belongs to the open file too, but has neither. It serves where the second kind does not exist
  (macOS, gVisor). Who looks there takes the lock for a moment, so a start that
  comes in that moment may be refused as if the other still ran.

``F_OFD_GETLK`` does not tell a pid (it is -1 for such locks): that is what the file's content is for.
"""

import errno
import fcntl
import struct
import sys
from typing import Protocol

__all__ = ["FileLock", "OpenFileLock", "WholeFileLock", "lock_for"]


class FileLock(Protocol):
    """Two exclusive locks on one file. ``OSError`` comes through when the file system knows no locks."""

    def take_claim(self, descriptor: int) -> bool:
        """Take the claim alone, without waiting; tell whether it was free. Needs a writable descriptor."""
        ...

    def take_life(self, descriptor: int) -> bool:
        """Take claim and life, without waiting; tell whether both were free. Needs a writable descriptor."""
        ...

    def is_alive(self, descriptor: int) -> bool:
        """Tell whether somebody else's open file holds life. A readable descriptor is enough."""
        ...


_CLAIM, _LIFE, _BOTH = (0, 1), (1, 1), (0, 2)  # first byte and number of bytes; the file may be shorter
# struct flock of fcntl(2): l_type, l_whence, l_start, l_len, l_pid, and its padding
_RECORD = struct.Struct("hhqqi0q")
_BUSY = (errno.EAGAIN, errno.EACCES)


class OpenFileLock:
    """The two locks as two bytes, with open file description locks."""

    def take_claim(self, descriptor: int) -> bool:
        """Lock the first byte."""
        return self._take(descriptor, _CLAIM)

    def take_life(self, descriptor: int) -> bool:
        """Lock both bytes at once."""
        return self._take(descriptor, _BOTH)

    def is_alive(self, descriptor: int) -> bool:
        """Ask whether the second byte could be read-locked, without locking it."""
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, self._record(fcntl.F_RDLCK, _LIFE))
        kind: int = _RECORD.unpack_from(answer)[0]
        return kind != fcntl.F_UNLCK

    def _take(self, descriptor: int, part: tuple[int, int]) -> bool:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, self._record(fcntl.F_WRLCK, part))
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True

    @staticmethod
    def _record(kind: int, part: tuple[int, int]) -> bytes:
        return _RECORD.pack(kind, 0, *part, 0)


class WholeFileLock:
    """Both locks as one, with ``flock(2)``, for systems that have nothing better."""

    def take_claim(self, descriptor: int) -> bool:
        """Lock the file."""
        return self._take(descriptor, fcntl.LOCK_EX)

    def take_life(self, descriptor: int) -> bool:
        """Lock the file."""
        return self._take(descriptor, fcntl.LOCK_EX)

    def is_alive(self, descriptor: int) -> bool:
        """Try to lock the file, shared with others who try, and unlock it."""
        if not self._take(descriptor, fcntl.LOCK_SH):
            return True
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False

    @staticmethod
    def _take(descriptor: int, kind: int) -> bool:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True


# Others may have the constants, but they lay out the structure otherwise.
_BEST: FileLock = OpenFileLock() if sys.platform == "linux" else WholeFileLock()


def lock_for(descriptor: int, best: FileLock = _BEST) -> FileLock:
    """Return the best kind of lock that the kernel behind this open file has. ``best`` is for tests."""
    if isinstance(best, WholeFileLock):
        return best  # and cannot be tried without giving up what this very descriptor holds
    try:
        best.is_alive(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return WholeFileLock()
    return best
