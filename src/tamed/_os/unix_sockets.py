"""Unix sockets at paths of any length.

An address has room for 108 bytes of path (unix(7)). A longer one is reached through its
directory: ``/proc/self/fd/N/NAME`` is short, and names the same file.
"""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from tamed.errors import CannotCreate, SystemRefused

__all__ = ["bind_unix", "connect_unix"]

_ROOM = 103  # bytes that fit everywhere, with the zero byte at the end
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_OWN_FDS = Path("/proc/self/fd")


def bind_unix(unbound: socket.socket, path: Path, *, mode: int = 0o600) -> None:
    """Bind a socket to a path, which must be free; the file has ``mode`` from the moment it is there.

    For that the process changes its umask for a moment: no other thread may make files meanwhile.

    ``OSError`` comes through. Raises CannotCreate if the name alone is too long, and SystemRefused for a
    long path on a system without ``/proc``.
    """
    mask = os.umask(0o777 & ~mode)
    try:
        _at(path, unbound.bind)
    finally:
        os.umask(mask)


def connect_unix(unconnected: socket.socket, path: Path) -> None:
    """Connect a socket to the one at a path. Raises as :func:`bind_unix` does."""
    _at(path, unconnected.connect)


def _at(path: Path, call: Callable[[str], None]) -> None:
    """Call with a path that fits into an address and names the same file."""
    if len(os.fsencode(path)) <= _ROOM:
        call(str(path))
        return
    if not _OWN_FDS.exists():
        raise SystemRefused(f"socket {path}", "the path is too long for this system", "use a shorter one")
    directory = os.open(path.parent, _DIRECTORY)
    try:
        short = str(_OWN_FDS / str(directory) / path.name)
        if len(os.fsencode(short)) > _ROOM:
            raise CannotCreate(f"socket {path}", "its name is too long", "use a shorter one")
        call(short)
    finally:
        os.close(directory)
