"""Binding a unix socket to a path, with a mode, and the file that this makes.

The usual ways to set the mode have a race. Setting the umask around ``bind`` changes it for every thread, so
that a log file created in that moment gets the wrong mode; ``chmod`` after ``bind`` is too late for a
datagram socket, which every user may send to from ``bind`` on. ``fchmod`` on the unbound socket limits the
mode of the file that ``bind`` creates (the kernel's ``unix_bind`` uses the socket inode's mode, less the
umask): so the file never has more permissions than requested. ``chmod`` then adds those that the umask
removed.
"""

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from tamed._os.unix_sockets import OWN_FDS, short_path

__all__ = ["SocketFile", "bind_unix"]


class SocketFile(NamedTuple):
    """The file of a unix socket that this process created; ``path`` is absolute."""

    path: str
    device: int
    inode: int

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return the file that is at a path now. May raise ``OSError``."""
        status = path.lstat()
        return cls(str(path.absolute()), status.st_dev, status.st_ino)

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
