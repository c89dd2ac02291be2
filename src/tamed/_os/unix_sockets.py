"""Unix sockets: names and paths of any length as addresses, binding and connecting, the peer's credentials.

``sun_path`` has 108 bytes (unix(7)). A longer path is reached through its directory: ``/proc/self/fd/N/NAME``
is short, and names the same file.

The usual ways to set the mode of a socket's file have a race. Setting the umask around ``bind`` changes it
for every thread, so that a log file created in that moment gets the wrong mode; ``chmod`` after ``bind`` is
too late for a datagram socket, which every user may send to from ``bind`` on. ``fchmod`` on the unbound
socket limits the mode of the file that ``bind`` creates (the kernel's ``unix_bind`` uses the socket inode's
mode, less the umask): so the file never has more permissions than requested. ``chmod`` then adds those that
the umask removed.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import contextmanager, suppress
from pathlib import Path

from tamed.errors import ConfigurationError, SystemRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final, Self

__all__ = [
    "CREDENTIALS",
    "OWN_FDS",
    "Credentials",
    "SocketFile",
    "abstract_address",
    "bind_unix",
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


class SocketFile:
    """The file of a unix socket that this process created; ``path`` is absolute."""

    def __init__(self, path: str, device: int, inode: int) -> None:
        self.path = path
        self.device = device
        self.inode = inode

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return the file that is at a path now. May raise ``OSError``."""
        status = path.lstat()
        return cls(str(path.absolute()), status.st_dev, status.st_ino)

    def is_same(self, other: SocketFile) -> bool:
        """Return whether another object means the same file, perhaps by another path."""
        return (self.device, self.inode) == (other.device, other.inode)

    @property
    def is_lost(self) -> bool:
        """Whether the path is missing or another file, so that clients cannot connect.

        Use it while the socket is open: that keeps the inode, so no other file can have the same number.
        """
        try:
            status = os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # unknown
        return (status.st_dev, status.st_ino) != (self.device, self.inode)

    def remove(self) -> None:
        """Unlink the file if it is still the one that was created; call it before the socket is closed."""
        if not self.is_lost:
            with suppress(OSError):
                Path(self.path).unlink()


def bind_unix(unbound: socket.socket, path: Path, mode: int | None = None) -> SocketFile:
    """Bind a socket to a path, which must be free, and return its file.

    This user must have created the socket. The file has ``mode`` before any client can connect; without a
    mode, the umask applies. After an error there is no file. Raises ``OSError``, and as `short_path` does.
    """
    if mode is not None:
        os.fchmod(unbound.fileno(), mode)
    with short_path(path) as name:
        unbound.bind(name)
    file = SocketFile.at(path)
    try:
        if mode not in (None, stat.S_IMODE(path.lstat().st_mode)):
            _set_mode(path, mode)
    except BaseException:
        file.remove()
        raise
    return file


def _set_mode(path: Path, mode: int) -> None:
    """Change the mode of the socket itself, never that of a symbolic link's target.

    The owner of the directory could replace the socket with a link, and root would change another file.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise FileExistsError(errno.EEXIST, "another process replaced the socket", str(path))
        (OWN_FDS / str(descriptor)).chmod(mode)
    finally:
        os.close(descriptor)


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
