"""Locks on an open file: held by whoever has the file open, and gone with the last of them.

A pid file's lock must survive a fork, since the daemon is a child of the process that was started, and an
exec, since an upgrade replaces the program; and it must be gone with ``kill -9``. Of the three kinds of
locks:

- POSIX record locks (``F_SETLK``) belong to the process: a fork loses them, and so does closing any
  other descriptor of the same file. They cannot be used.
- ``flock(2)`` belongs to the open file, but who looks has to take it for a moment, and a start that comes in
  that moment would be refused as if the other still ran.
- Open file description locks (``F_OFD_SETLK``, fcntl(2)) belong to the open file too. They can be asked
  about (``F_OFD_GETLK``) without being taken, so looking never disturbs, and they cover ranges, so one file
  can carry two locks: *claim* and *life*, see ``_pidfile``. They are what we use.

``F_OFD_GETLK`` does not tell a pid (it is -1 for such locks): that is what the file's content is for.
``OSError`` comes through when the file system knows no locks.
"""

import errno
import fcntl
import struct

__all__ = ["is_alive", "take_claim", "take_life"]

_CLAIM, _LIFE, _BOTH = (0, 1), (1, 1), (0, 2)  # first byte and number of bytes; the file may be shorter
# struct flock of fcntl(2): l_type, l_whence, l_start, l_len, l_pid, and its padding
_RECORD = struct.Struct("hhqqi0q")
_BUSY = (errno.EAGAIN, errno.EACCES)


def take_claim(descriptor: int) -> bool:
    """Take the claim alone, without waiting; tell whether it was free. Needs a writable descriptor."""
    return _take(descriptor, _CLAIM)


def take_life(descriptor: int) -> bool:
    """Take claim and life, without waiting; tell whether both were free. Needs a writable descriptor."""
    return _take(descriptor, _BOTH)


def is_alive(descriptor: int) -> bool:
    """Tell whether somebody else's open file holds life. A readable descriptor is enough."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _record(fcntl.F_RDLCK, _LIFE))
    kind: int = _RECORD.unpack_from(answer)[0]
    return kind != fcntl.F_UNLCK


def _take(descriptor: int, part: tuple[int, int]) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _record(fcntl.F_WRLCK, part))
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def _record(kind: int, part: tuple[int, int]) -> bytes:
    return _RECORD.pack(kind, 0, *part, 0)
