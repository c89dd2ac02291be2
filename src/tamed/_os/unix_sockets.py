"""Unix sockets: names and paths of any length as addresses, connecting, and the peer's credentials.

``sun_path`` has 108 bytes (unix(7)). A longer path is reached through its directory: ``/proc/self/fd/N/NAME``
is short, and names the same file.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import contextmanager
from pathlib import Path

from tamed.errors import ConfigurationError, SystemRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

__all__ = [
    "CREDENTIALS",
    "OWN_FDS",
    "Credentials",
    "abstract_address",
    "connect_unix",
    "peer_credentials",
    "short_path",
]

_ROOM: Final = 107
"""The bytes of ``sun_path`` without the zero byte at its end, or at its beginning."""

OWN_FDS: Final = Path("/proc/self/fd")
"""The open descriptors of this process, as symbolic links: proc_pid_fd(5)."""

CREDENTIALS: Final = struct.Struct("iII")
"""``struct ucred`` of unix(7)."""


class Credentials:
    """The process at the other end of a unix socket, as the kernel reports it."""

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid


def connect_unix(unconnected: socket.socket, path: Path) -> None:
    """Connect a socket to the one at a path. Raises as `bind_unix` does."""
    with short_path(path) as name:
        unconnected.connect(name)


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Return a name for a socket's file that fits into an address; valid inside the ``with`` only.

    Raises ConfigurationError if the name alone is too long, SystemRefused for a long path on a system
    without ``/proc``, and ``OSError`` if the path is long and its directory cannot be opened.
    """
    if len(os.fsencode(path)) <= _ROOM:
        yield str(path)
        return
    if not OWN_FDS.exists():
        raise SystemRefused(f"socket {path}", "the path is too long for this system", "use a shorter one")
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        prefix = f"{OWN_FDS}/{directory}/"
        _require_room(path, os.fsencode(path.name), _ROOM - len(prefix))
        yield prefix + path.name
    finally:
        os.close(directory)


def abstract_address(name: str) -> bytes:
    """Return the address of a name in the abstract namespace, which is written ``@name``.

    Raises ConfigurationError if it is too long.
    """
    raw = name.removeprefix("@").encode("utf-8", "surrogateescape")
    _require_room(name, raw, _ROOM)
    return b"\0" + raw


def peer_credentials(sock: Any) -> Credentials:
    """Return the credentials of the process that listens, or has connected (SO_PEERCRED, unix(7)).

    May raise ``OSError``. ``sock`` is a socket, or a transport's substitute for it.
    """
    return Credentials(
        *CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    )


def _require_room(path: object, name: bytes, limit: int) -> None:
    if len(name) > limit:
        why = f"its name has {len(name)} bytes, but a socket's name may have {limit} at most"
        raise ConfigurationError(f"cannot use unix:{path}", why, "choose a shorter one")
