"""Sockets for the reactor's ports: what Twisted is asked to listen on, as an endpoint of the socket source.

What the application listens on before it is ready belongs to all its workers, and comes from the source. So
does a known TCP port or a unix socket that is opened later: programs do so when their database is there. A
port that the kernel chooses, or one for datagrams, that is opened later belongs to one connection or one
question (FTP, DNS), and to this process alone.
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.error import CannotListenError

from tamed.errors import CannotCreate, MissingInput, PermissionRefused, TamedError
from tamed.net import (
    FdEndpoint,
    Listener,
    LocalSource,
    SocketSource,
    TcpEndpoint,
    UnixEndpoint,
    current,
    passed_descriptors,
)

__all__ = ["adopted", "of_tcp", "of_udp", "of_unix"]

_ERRNO: Final[dict[type[Exception], int]] = {
    PermissionRefused: errno.EACCES,
    MissingInput: errno.ENOENT,
    CannotCreate: errno.EACCES,
}


def of_tcp(port: int, interface: str, *, own: bool) -> Listener:
    """Return the listener for ``listenTCP``, for this process alone or for all workers.

    Raises CannotListenError, caused by a TamedError.
    """
    source: SocketSource = LocalSource() if own else current().source
    return _listener(port, interface, lambda: source.listen_now(_internet(port, interface)))


def of_udp(port: int, interface: str, *, own: bool) -> Listener:
    """Return the listener for ``listenUDP``; raise as `of_tcp` does."""
    source: SocketSource = LocalSource() if own else current().source
    kind = socket.SOCK_DGRAM
    return _listener(port, interface, lambda: source.listen_now(_internet(port, interface), kind))


def of_unix(address: str | bytes, mode: int) -> Listener:
    """Return the listener for ``listenUNIX``; raise as `of_tcp` does."""
    path = os.fsdecode(address)
    name = f"@{path[1:]}" if path.startswith("\0") else os.path.abspath(path)  # noqa: PTH100 - keeps symlinks
    endpoint = UnixEndpoint(name, None if name.startswith("@") else mode & 0o777)
    return _listener(path, "", lambda: current().source.listen_now(endpoint))


def adopted(descriptor: int, family: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
    """Return the listener for ``adoptStreamPort`` and ``adoptDatagramPort``: a duplicate of what is given.

    It is shared if it was passed to the program, by systemd or a supervisor, and the process's own otherwise.
    Raises OSError for what is no socket.
    """
    sock = socket.socket(family, kind, fileno=os.dup(descriptor))
    sock.setblocking(False)
    given = os.fstat(descriptor).st_ino
    shared = any(os.fstat(passed).st_ino == given for passed in passed_descriptors(os.environ))
    return Listener(FdEndpoint(descriptor), (sock,), shared=shared, sole=not shared)


def _internet(port: int, interface: str) -> TcpEndpoint:
    """Return the endpoint for an interface as Twisted reads it."""
    if interface in ("", "0.0.0.0"):  # noqa: S104 - what it means to Twisted
        return TcpEndpoint("0.0.0.0", port)  # noqa: S104
    if interface == "::":  # IPv4 too, as on a socket that is not for IPv6 only
        return TcpEndpoint("", port)
    if isIPAddress(interface) or isIPv6Address(interface):
        return TcpEndpoint(interface, port)
    return TcpEndpoint(socket.gethostbyname(interface), port)  # a name stands for one address, of IPv4


def _listener(port: int | str, interface: str, listen: Callable[[], Listener]) -> Listener:
    try:
        return listen()
    except (TamedError, ValueError, OSError) as failure:
        raise CannotListenError(interface or None, port, _as_os_error(failure)) from failure


def _as_os_error(failure: Exception) -> OSError:
    """Return a refusal as programs know it: they look at its number."""
    if isinstance(failure, OSError):
        return failure
    if isinstance(failure.__cause__, OSError):
        return failure.__cause__
    return OSError(_ERRNO.get(type(failure), errno.EADDRINUSE), str(failure))
