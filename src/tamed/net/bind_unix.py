"""Binding the unix socket of an endpoint, replacing a stale one, and connecting to one.

``bind`` comes first and is atomic. If the path exists, it is checked: a socket that no process holds is
stale and replaced, and nothing else is ever removed. That is done under a lock on the directory: otherwise,
if two processes find the same stale file, the second would remove the new socket of the first.
"""

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tamed._os import unix_sockets
from tamed._os.unix_sockets import SocketFile, abstract_address, short_path
from tamed.errors import (
    CannotCreate,
    MissingInput,
    PermissionRefused,
    TamedError,
    Unavailable,
    from_os_error,
)
from tamed.net.endpoint import UnixEndpoint

__all__ = ["bind_unix", "connect_unix"]

_LOCK_ATTEMPTS: Final = 100
_LOCK_PAUSE: Final = 0.01
"""Seconds. Other instances hold the lock for microseconds, so a second in all is enough. Any process that can
open the directory could hold it forever."""


def bind_unix(endpoint: UnixEndpoint, kind: socket.SocketKind) -> tuple[socket.socket, SocketFile | None]:
    """Return a bound, non-blocking socket, and its file unless it is abstract.

    Raises ``Unavailable`` if a process holds the socket, ``CannotCreate`` if the path is not a socket,
    ``MissingInput`` without the directory, ``PermissionRefused``, and ``ConfigurationError`` for a name
    that is too long. After an error no file or socket is left.
    """
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, kind))
        sock.setblocking(False)
        try:
            file = _bind(sock, endpoint)
        except OSError as error:
            raise _refusal(endpoint, error) from error
        undo.pop_all()
    return sock, file


def connect_unix(unconnected: socket.socket, endpoint: UnixEndpoint) -> None:
    """Connect a socket to an endpoint. A non-blocking socket raises OSError if the backlog is full."""
    if endpoint.abstract:
        unconnected.connect(abstract_address(endpoint.path))
    else:
        unix_sockets.connect_unix(unconnected, Path(endpoint.path))


def _bind(sock: socket.socket, endpoint: UnixEndpoint) -> SocketFile | None:
    if endpoint.abstract:
        sock.bind(abstract_address(endpoint.path))
        return None
    path = Path(endpoint.path).absolute()
    try:
        return unix_sockets.bind_unix(sock, path, endpoint.mode)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    with _alone_in(path.parent, endpoint):
        _require_stale(path, endpoint)
        path.unlink(missing_ok=True)
        return unix_sockets.bind_unix(sock, path, endpoint.mode)


def _require_stale(path: Path, endpoint: UnixEndpoint) -> None:
    """Raise unless the path is free, or a socket that no process holds.

    The check connects a datagram socket: for a stream server that fails with a wrong type, and the server
    never sees a connection. A stream connection would be refused by a socket that is bound but does not
    listen yet, as by a stale one. Here only ``ECONNREFUSED`` means that no process holds the socket.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a file that is not a socket"
        raise CannotCreate(_what(endpoint), f"{what} has this path", "remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe, short_path(path) as name:
        probe.setblocking(False)
        answer = probe.connect_ex(name)
    if answer == errno.EACCES:
        why = "a socket exists, and this user may not check whether it is in use"
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
            raise Unavailable(_what(endpoint), why, f"find it: fuser -v {directory}")
        yield
    finally:
        os.close(descriptor)


def _what(endpoint: UnixEndpoint) -> str:
    return f"cannot listen on {UnixEndpoint(endpoint.path)}"


def _in_use(endpoint: UnixEndpoint) -> Unavailable:
    import shlex  # not at the top: only needed for errors

    command = f"ss -xap src {shlex.quote(f'unix:{endpoint.path}')}"
    remedy = f"stop the process that listens there ({command}) or choose another path"
    return Unavailable(_what(endpoint), "a running process holds this socket", remedy)


def _refusal(endpoint: UnixEndpoint, error: OSError) -> TamedError:
    what, directory = _what(endpoint), Path(endpoint.path).absolute().parent
    match error.errno:
        case errno.EADDRINUSE:
            return _in_use(endpoint)
        case errno.ENOENT | errno.ENOTDIR:
            remedy = f"create it (mkdir -p {directory}) or choose another path"
            return MissingInput(what, f"there is no directory {directory}", remedy)
        case errno.EACCES | errno.EPERM:
            why = f"this user may not create a socket in {directory}"
            return PermissionRefused(what, why, "run as the directory's owner or choose another path")
        case errno.EROFS | errno.ENOSPC | errno.EDQUOT | errno.EEXIST | errno.ELOOP | errno.ENAMETOOLONG:
            return CannotCreate(what, os.strerror(error.errno), "choose another path")
        case _:
            return from_os_error(what, error)
