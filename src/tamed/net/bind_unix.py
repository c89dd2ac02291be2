"""Bind a unix socket: its file, its mode, and what may lie in its way.

**The mode.** The usual ways leave a gap. Setting the umask around ``bind`` changes it for every thread,
so that a log file made in that moment gets the wrong mode; ``chmod`` after ``bind`` is too late for a
datagram socket, which anyone may send to from ``bind`` on. On Linux ``fchmod`` on the unbound socket
limits the mode that ``bind`` creates the file with (the kernel's ``unix_bind`` takes the socket inode's
mode, less the umask): so the file is never more open than asked. ``chmod`` then gives back what the umask
took. Elsewhere ``fchmod`` is refused and the ``chmod`` alone has to do; before ``listen`` nobody can
connect to a stream socket, whatever the mode.

**What lies in the way.** ``bind`` comes first and is atomic. Only if the path exists we look: a socket
that no process holds is stale and replaced, and nothing else is ever removed. Replacing is done under a
lock on the directory, or of two processes that find the same stale file the second would remove the
first one's new socket.

**Long paths.** ``sun_path`` has 108 bytes. A longer path is reached through the directory's descriptor,
``/proc/self/fd/N/name``, so that only the file's own name has to be short; without ``/proc`` it is an error.
"""

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, Self

from tamed.errors import (
    CannotCreate,
    ConfigurationError,
    MissingInput,
    PermissionRefused,
    TamedError,
    Unavailable,
    from_os_error,
)
from tamed.net.endpoint import UnixEndpoint

__all__ = ["SocketFile", "bind_unix", "short_path"]

_PATH_BYTES: Final = 107
"""What ``sun_path`` takes besides the zero at its end: unix(7)."""

_LOCK_ATTEMPTS: Final = 100
_LOCK_PAUSE: Final = 0.01
"""Seconds. The lock is held for microseconds, so a second is enough for any honest neighbour, and
whoever can open the directory could hold it for ever."""


class SocketFile(NamedTuple):
    """The file of a unix socket that this process made; ``path`` is absolute."""

    path: str
    device: int
    inode: int

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return the file that is at a path now. ``OSError`` comes through."""
        status = path.lstat()
        return cls(str(path.absolute()), status.st_dev, status.st_ino)

    @property
    def is_lost(self) -> bool:
        """Whether the path means nothing any more, or another file: nobody can connect by it.

        To be asked while the socket is open. It holds its inode, so no other file can have the same number.
        """
        try:
            status = os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # it cannot be told
        return (status.st_dev, status.st_ino) != (self.device, self.inode)

    def remove(self) -> None:
        """Unlink the file if it is still the one that was made; call it before the socket is closed."""
        if not self.is_lost:
            with suppress(OSError):
                Path(self.path).unlink()


def bind_unix(endpoint: UnixEndpoint, kind: socket.SocketKind) -> tuple[socket.socket, SocketFile | None]:
    """Return a bound, non-blocking socket, and the file that was made for it unless it is abstract.

    Raises ``Unavailable`` if a process holds the socket, ``CannotCreate`` if something else lies there,
    ``MissingInput`` without the directory, ``PermissionRefused``, and ``ConfigurationError`` for a name
    that is too long. After an error nothing is left.
    """
    try:
        if endpoint.abstract:
            return _bind_abstract(endpoint, kind), None
        return _bind_file(endpoint, kind)
    except OSError as error:
        raise _refusal(endpoint, error) from error


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Give a name for a socket's file that fits into ``sun_path``; valid inside the ``with`` only.

    For ``bind`` and ``connect`` alike. Raises ``ConfigurationError`` if there is none, and ``OSError`` if
    the path is long and its directory cannot be opened.
    """
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        prefix = f"/proc/self/fd/{directory}/"
        if len(os.fsencode(path.name)) > _PATH_BYTES - len(prefix):
            raise _too_long(path, len(os.fsencode(path.name)), _PATH_BYTES - len(prefix))
        yield prefix + path.name
    finally:
        os.close(directory)


def _bind_abstract(endpoint: UnixEndpoint, kind: socket.SocketKind) -> socket.socket:
    name = endpoint.path.removeprefix("@").encode("utf-8", "surrogateescape")
    if len(name) > _PATH_BYTES:
        raise _too_long(endpoint.path, len(name), _PATH_BYTES)
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, kind))
        sock.setblocking(False)
        sock.bind(b"\0" + name)
        undo.pop_all()
        return sock


def _bind_file(endpoint: UnixEndpoint, kind: socket.SocketKind) -> tuple[socket.socket, SocketFile]:
    path = Path(endpoint.path).absolute()
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, kind))
        sock.setblocking(False)
        if endpoint.mode is not None:
            _limit_mode(sock, endpoint.mode)
        _bind_or_replace(sock, path, endpoint)
        status = path.lstat()
        file = SocketFile.at(path)
        undo.callback(file.remove)
        if endpoint.mode not in (None, stat.S_IMODE(status.st_mode)):
            _set_mode(path, endpoint.mode)
        undo.pop_all()
        return sock, file


def _bind_or_replace(sock: socket.socket, path: Path, endpoint: UnixEndpoint) -> None:
    with short_path(path) as name:
        try:
            sock.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return
        with _alone_in(path.parent, endpoint):
            _require_stale(name, endpoint)
            Path(name).unlink(missing_ok=True)
            sock.bind(name)


def _require_stale(name: str, endpoint: UnixEndpoint) -> None:
    """Raise unless the path is free, or a socket that no process holds.

    The question is asked with a datagram socket: a stream server answers that it is of the wrong type,
    and never sees a connection. One that is bound and does not listen yet would refuse a connection
    like a dead one, but it answers this. ``ECONNREFUSED`` alone means that nobody is there.
    """
    try:
        status = os.lstat(name)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "something that is not a socket"
        raise CannotCreate(_what(endpoint), f"{what} is in its place", "remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(name)
    if answer == errno.EACCES:
        why = "a socket is there, and this user may not ask whether it is in use"
        raise PermissionRefused(_what(endpoint), why, "remove it or choose another path")
    if answer not in (errno.ECONNREFUSED, errno.ENOENT):
        raise _in_use(endpoint)


@contextmanager
def _alone_in(directory: Path, endpoint: UnixEndpoint) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE)
        else:
            why = f"another process keeps {directory} locked, so its stale socket cannot be replaced"
            raise Unavailable(_what(endpoint), why, f"see who: fuser -v {directory}")
        yield
    finally:
        os.close(descriptor)


def _limit_mode(sock: socket.socket, mode: int) -> None:
    with suppress(OSError):  # EINVAL wherever it is not Linux
        os.fchmod(sock.fileno(), mode)


def _set_mode(path: Path, mode: int) -> None:
    """Change the mode of the socket itself, never that of what a symbolic link points to.

    Whoever owns the directory could put a link there in time, and root would open some other file.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise FileExistsError(errno.EEXIST, "another process replaced the socket", str(path))
        Path(f"/proc/self/fd/{descriptor}").chmod(mode)
    finally:
        os.close(descriptor)


def _what(endpoint: UnixEndpoint) -> str:
    return f"cannot listen on {UnixEndpoint(endpoint.path)}"


def _too_long(path: object, length: int, limit: int) -> ConfigurationError:
    why = f"its name has {length} bytes, and a socket's name {limit} at most"
    return ConfigurationError(f"cannot use unix:{path}", why, "choose a shorter one")


def _in_use(endpoint: UnixEndpoint) -> Unavailable:
    import shlex  # only needed when something is wrong

    command = f"ss -xap src {shlex.quote(f'unix:{endpoint.path}')}"
    remedy = f"stop what listens there ({command}) or choose another path"
    return Unavailable(_what(endpoint), "a running process holds this socket", remedy)


def _refusal(endpoint: UnixEndpoint, error: OSError) -> TamedError:
    what, directory = _what(endpoint), Path(endpoint.path).absolute().parent
    match error.errno:
        case errno.EADDRINUSE:
            return _in_use(endpoint)
        case errno.ENOENT | errno.ENOTDIR:
            remedy = f"make it (mkdir -p {directory}) or choose another path"
            return MissingInput(what, f"there is no directory {directory}", remedy)
        case errno.EACCES | errno.EPERM:
            why = f"this user may not make a socket in {directory}"
            return PermissionRefused(what, why, "run as the directory's owner or choose another path")
        case errno.EROFS | errno.ENOSPC | errno.EDQUOT | errno.EEXIST | errno.ELOOP | errno.ENAMETOOLONG:
            return CannotCreate(what, os.strerror(error.errno), "choose another path")
        case _:
            return from_os_error(what, error)
