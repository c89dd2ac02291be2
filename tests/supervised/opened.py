"""Run a command where every user can execute this interpreter: ``python opened.py COMMAND...``, as root.

An interpreter in root's home directory is out of reach for everybody else, also for a daemon that has become
somebody else and starts another worker. In a mount namespace of its own the command sees that directory open
for all, and empty but for the interpreter; nobody else does.
"""

import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18


def closed_directory() -> Path | None:
    """Return the outermost directory on the way to the interpreter that is closed to others, if any."""
    inner = Path(sys.base_prefix).resolve()
    return next((one for one in (*reversed(inner.parents), inner) if not one.stat().st_mode & 0o001), None)


OPENED = [sys.executable, __file__] if os.geteuid() == 0 and closed_directory() else []
"""What comes before a command that every user is to be able to execute; nothing, if all of them are."""


def main() -> None:
    """Make the interpreter reachable, and become the command."""
    closed = closed_directory()
    if closed is not None:
        _open_way(closed, Path(sys.base_prefix).resolve())
    os.execvp(sys.argv[1], sys.argv[1:])


def _open_way(closed: Path, prefix: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNS))
    _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    inside = os.open(prefix, os.O_PATH)
    _check(libc.mount(b"tmpfs", os.fsencode(closed), b"tmpfs", 0, b"mode=755"))
    prefix.mkdir(parents=True)
    _check(libc.mount(b"/proc/self/fd/%d" % inside, os.fsencode(prefix), None, _MS_BIND | _MS_REC, None))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
