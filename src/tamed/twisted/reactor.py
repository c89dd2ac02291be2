"""The reactor: Twisted's own for asyncio, on an event loop that Tamed runs and ends.

It differs from Twisted's in four ways. It can be created before there is an event loop, because programs
import it when they are loaded, and it moves to the running loop. It never runs or stops that loop. It listens
on sockets from the socket source of the current `ServerEnvironment`. And it counts its connections, so that
they can be drained.

Sockets on which the application listens before it is ready belong to all workers, and come from the socket
source. So do a fixed TCP port or a unix socket that are opened later: programs open one when their database
is available. A port chosen by the kernel, or a datagram port, that is opened later serves one connection or
one query (FTP, DNS), and belongs to this process alone.
"""

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, Never, cast

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.main import installReactor
from twisted.internet.protocol import AbstractDatagramProtocol

from tamed.errors import ApplicationFailed, CannotCreate, MissingInput, PermissionRefused, TamedError
from tamed.net.endpoint import FdEndpoint, TcpEndpoint, UnixEndpoint
from tamed.net.inherit import passed_descriptors
from tamed.net.listen import Listener, LocalSource, SocketSource, current_environment
from tamed.twisted._connections import Connections
from tamed.twisted._life import NoLoop, ReactorLife
from tamed.twisted._ports import TcpPort, UdpPort, UnixPort, adopt_connection

__all__ = ["TamedReactor", "install"]

_REACTOR: Final = "twisted.internet.reactor"
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_ERRNO: Final[dict[type[Exception], int]] = {
    PermissionRefused: errno.EACCES,
    MissingInput: errno.ENOENT,
    CannotCreate: errno.EACCES,
}


def install() -> "TamedReactor":
    """Return the reactor of this process; install it if there is none.

    A program with its own event loop calls this before anything imports ``twisted.internet.reactor``.
    Raises ApplicationFailed if there is another reactor.
    """
    found: Any = sys.modules.get(_REACTOR)
    if found is None:
        found = TamedReactor()
        installReactor(found)
    if not isinstance(found, TamedReactor):
        raise ApplicationFailed(
            f"Twisted's reactor is already {type(found).__name__}",
            "Tamed runs Twisted on its own event loop",
            "remove the code that installs another reactor",
        )
    return found


class TamedReactor(AsyncioSelectorReactor):
    """Twisted's reactor on Tamed's event loop.

    ``connections`` has its ports and its open connections. ``life`` starts and ends it.
    """

    def __init__(self) -> None:
        super().__init__(cast(asyncio.AbstractEventLoop, NoLoop()))
        self.connections = Connections()
        self.life = ReactorLife(self, self.connections)

    def run(self, installSignalHandlers: bool = True) -> Never:  # noqa: N803, FBT - Twisted's signature
        """Refuse: Tamed runs the loop."""
        raise ApplicationFailed(
            "the program calls reactor.run()", "Tamed runs the reactor itself", "remove the call"
        )

    def stop(self) -> None:
        """Request the end of the application. Raises ReactorNotRunning as Twisted's does."""
        self.life.stop_called()

    def crash(self) -> None:
        """Stop running; if the program called this, end the application, too."""
        ReactorBase.crash(self)  # not the parent's method, which stops the event loop
        self.life.crashed()

    def spawnProcess(self, *arguments: Any, **options: Any) -> Any:  # noqa: N802
        """Start a child process, and watch for its end. See IReactorProcess."""
        transport = super().spawnProcess(*arguments, **options)
        if transport.pid is not None:
            self.life.watch_child(transport.pid)
        return transport

    def listenTCP(  # noqa: N802
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen on a socket from the socket source. See IReactorTCP."""
        own = self.running and port == 0
        listener = _internet_listener(port, interface, socket.SOCK_STREAM, own=own)
        opened: Any = TcpPort(port, factory, backlog, interface, self)
        opened.open(listener, own=own)
        return cast(IListeningPort, opened)

    def listenUNIX(  # noqa: N802
        self,
        address: str | bytes,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,  # noqa: N803
    ) -> IListeningPort:
        """Listen on a socket from the socket source, which replaces a stale file. See IReactorUNIX."""
        listener = _unix_listener(address, mode)
        opened: Any = UnixPort(os.fsencode(address), factory, backlog, mode, self)
        opened.open(listener)
        return cast(IListeningPort, opened)

    def listenUDP(  # noqa: N802
        self,
        port: int,
        protocol: AbstractDatagramProtocol,
        interface: str = "",
        maxPacketSize: int = 8192,  # noqa: N803
    ) -> IListeningPort:
        """Receive on a socket from the socket source. See IReactorUDP."""
        listener = _internet_listener(port, interface, socket.SOCK_DGRAM, own=self.running)
        opened: Any = UdpPort(port, protocol, interface, maxPacketSize, self)
        opened.open(listener, own=self.running)
        return cast(IListeningPort, opened)

    def adoptStreamPort(  # noqa: N802
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        factory: IProtocolFactory,
    ) -> IListeningPort:
        """Listen on a socket that the program created or received. See IReactorSocket."""
        listener = _adopted_listener(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        name = listener.sockets[0].getsockname()
        opened: Any
        if addressFamily == socket.AF_UNIX:
            opened = UnixPort(name, factory, reactor=self)
        else:
            opened = TcpPort(name[1], factory, interface=name[0], reactor=self)
        opened.open(listener, own=listener.sole)
        return cast(IListeningPort, opened)

    def adoptDatagramPort(  # noqa: N802
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        protocol: AbstractDatagramProtocol,
        maxPacketSize: int = 8192,  # noqa: N803
    ) -> IListeningPort:
        """Receive on a socket that the program created or received. See IReactorSocket."""
        if addressFamily == socket.AF_UNIX:
            raise error.UnsupportedAddressFamily(addressFamily)
        listener = _adopted_listener(fileDescriptor, addressFamily, socket.SOCK_DGRAM)
        host, port = listener.sockets[0].getsockname()[:2]
        opened: Any = UdpPort(port, protocol, host, maxPacketSize, self)
        opened.open(listener, own=listener.sole)
        return cast(IListeningPort, opened)

    def adoptStreamConnection(  # noqa: N802
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        factory: IProtocolFactory,
    ) -> Any:
        """Serve a connection that another process accepted. See IReactorSocket."""
        if addressFamily not in _FAMILIES:
            raise error.UnsupportedAddressFamily(addressFamily)
        return adopt_connection(fileDescriptor, addressFamily, factory, self)


def _internet_listener(port: int, interface: str, kind: socket.SocketKind, *, own: bool) -> Listener:
    """Return the listener for ``listenTCP`` or ``listenUDP``, for this process alone or for all workers.

    Raises CannotListenError, caused by a TamedError.
    """
    source: SocketSource = LocalSource() if own else current_environment().source
    return _listener(port, interface, lambda: source.listen_now(_endpoint(port, interface), kind))


def _unix_listener(address: str | bytes, mode: int) -> Listener:
    """Return the listener for ``listenUNIX``; raise as `_internet_listener` does."""
    path = os.fsdecode(address)
    name = f"@{path[1:]}" if path.startswith("\0") else os.path.abspath(path)  # noqa: PTH100 - keeps symlinks
    endpoint = UnixEndpoint(name, None if name.startswith("@") else mode & 0o777)
    return _listener(path, "", lambda: current_environment().source.listen_now(endpoint))


def _adopted_listener(descriptor: int, family: int, kind: socket.SocketKind) -> Listener:
    """Return the listener for ``adoptStreamPort`` and ``adoptDatagramPort``: a duplicate of the argument.

    It is shared if it was passed to the program, by systemd or a supervisor, and the process's own otherwise.
    Raises OSError if it is not a socket, and UnsupportedAddressFamily.
    """
    if family not in _FAMILIES:
        raise error.UnsupportedAddressFamily(family)
    sock = socket.socket(family, kind, fileno=os.dup(descriptor))
    sock.setblocking(False)
    given = os.fstat(descriptor).st_ino
    shared = any(os.fstat(passed).st_ino == given for passed in passed_descriptors(os.environ))
    return Listener(FdEndpoint(descriptor), (sock,), shared=shared, sole=not shared)


def _endpoint(port: int, interface: str) -> TcpEndpoint:
    """Return the endpoint for an interface as Twisted reads it."""
    if interface in ("", "0.0.0.0"):  # noqa: S104 - what it means to Twisted
        return TcpEndpoint("0.0.0.0", port)  # noqa: S104
    if interface == "::":  # IPv4, too, as on a socket without IPV6_V6ONLY
        return TcpEndpoint("", port)
    if isIPAddress(interface) or isIPv6Address(interface):
        return TcpEndpoint(interface, port)
    return TcpEndpoint(socket.gethostbyname(interface), port)  # Twisted resolves a name to one IPv4 address


def _listener(port: int | str, interface: str, listen: Callable[[], Listener]) -> Listener:
    try:
        return listen()
    except (TamedError, ValueError, OSError) as failure:
        raise error.CannotListenError(interface or None, port, _as_os_error(failure)) from failure


def _as_os_error(failure: Exception) -> OSError:
    """Return an error in the form that programs expect: they check its errno."""
    if isinstance(failure, OSError):
        return failure
    if isinstance(failure.__cause__, OSError):
        return failure.__cause__
    return OSError(_ERRNO.get(type(failure), errno.EADDRINUSE), str(failure))
