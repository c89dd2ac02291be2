"""The reactor's ports, on sockets from the socket source.

The ports are Twisted's own, as ``adoptStreamPort`` uses them, with additions: several sockets for one
address, a last check of the kernel's queue when they close, and a count of their connections.

They accept no connection before the program is ready. Under twistd no client is served between the moment
when a program listens and the end of its ``startService``, because no loop runs; here the loop runs, and
other workers may already listen on the socket. Afterwards the ports obey the gate of the `ServerEnvironment`,
if other processes have their sockets, too.
"""

import select
import socket
from typing import Any

from twisted.internet import tcp, udp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import ILoggingContext
from twisted.python import log as twisted_log

from tamed._os.descriptors import drop_new_connections
from tamed.net.accept import DEFAULT_BACKLOG, Shortage, is_of_the_connection, usable_backlog
from tamed.net.listen import Gate, Listener, current_environment
from tamed.twisted._compat import use_socket

__all__ = ["TcpPort", "UdpPort", "UnixPort", "adopt_connection"]

_BATCH = 16
"""Connections that a port accepts in one iteration of the event loop."""
_MOST = DEFAULT_BACKLOG
"""Maximum number of clients that a closing port still accepts, so that a flood cannot keep it open."""


class _Counted:
    """The part of a connection that counts it, even if its protocol raises at the end."""

    reactor: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.reactor.connections.add(self)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        try:
            super().connectionLost(reason)  # type: ignore[misc]
        finally:
            self.reactor.connections.remove(self)


class _TcpConnection(_Counted, tcp.Server):
    """A connection that is counted."""


class _UnixConnection(_Counted, unix.Server):
    """The same, on a unix socket."""


def adopt_connection(descriptor: int, family: int, factory: Any, reactor: Any) -> Any:
    """Serve a connection that another process accepted, using a duplicate of its descriptor.

    Returns the transport, or None if the factory wants no connection.
    """
    sock = socket.fromfd(descriptor, family, socket.SOCK_STREAM)
    return _serve(sock, sock.getpeername(), factory, reactor)


def _serve(sock: socket.socket, peer: Any, factory: Any, reactor: Any, port: Any = None) -> Any:
    """Connect a socket to a factory's protocol; if the factory returns None, close it and return None."""
    is_unix = sock.family == socket.AF_UNIX
    if sock.family == socket.AF_INET6:  # the scope of an address belongs to it
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        peer = (socket.getnameinfo(peer, numeric)[0], *peer[1:])
    protocol = factory.buildProtocol(UNIXAddress(peer) if is_unix else _internet_address(peer))
    if protocol is None:
        sock.close()
        return None
    number = 0
    if port is not None:
        number, port.sessionno = port.sessionno, port.sessionno + 1
    kind: Any = _UnixConnection if is_unix else _TcpConnection
    transport = kind(sock, protocol, peer, port, number, reactor)
    if port is None:  # otherwise Twisted has set it
        transport.repstr = f"<{type(protocol).__name__} on an adopted connection>"
    protocol.makeConnection(transport)
    return transport


def _internet_address(peer: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    return IPv4Address("TCP", *peer) if len(peer) == 2 else IPv6Address("TCP", *peer)


class _GatedPort:
    """Mixin: accept no connection before the program is ready, or while the gate is shut.

    A port that is this process's ``own`` ignores the gate: no other process could serve its clients.
    """

    reactor: Any
    addresses: tuple[str, ...] = ()
    _listener: Listener | None = None
    _is_own = False
    _is_accepting = False
    _is_gated = False
    _gate: Gate | None = None

    def pause_accepting(self) -> None:
        """Accept no connection: the gate is shut. See `GatedAcceptor`."""
        self._is_gated = True
        self.stopReading()  # type: ignore[attr-defined]

    def resume_accepting(self) -> None:
        self._is_gated = False
        self.startReading()

    def startReading(self) -> None:  # noqa: N802
        """Wait for clients, while they are accepted."""
        if self._is_accepting and not self._is_gated:
            super().startReading()  # type: ignore[misc]

    def _open_gate(self) -> None:
        self._is_accepting = True
        if not self._is_own:
            self._gate = current_environment().gate
            self._gate.add(self)
        self.startReading()

    def _leave_gate(self) -> None:
        if self._gate is not None:
            self._gate.remove(self)

    def _close_listener(self) -> None:
        self.reactor.connections.remove_port(self)
        if self._listener is not None:
            self._listener.close()


class _StreamPort(_GatedPort, tcp.Port):
    """The common base of TCP and unix ports; ``addresses`` are its addresses."""

    _shortage: Shortage | None = None

    def open(self, listener: Listener, *, own: bool = False) -> None:
        """Use the sockets of a listener, and accept connections as soon as the program is ready."""
        self.addresses = listener.addresses
        self.use(listener, listener.sockets[-1], own=own)
        self.reactor.connections.add_port(self)

    def use(self, listener: Listener, sock: socket.socket, *, own: bool) -> None:
        """Use one socket of a listener. Raises the exceptions of the factory's ``doStart``."""
        self._is_own = own
        self._listener = listener
        use_socket(self, sock)
        try:
            self.startListening()
        except BaseException:
            listener.close()
            raise

    def start_accepting(self) -> None:
        """Accept connections. Raises Unavailable if another process now listens on the address."""
        if not self._is_accepting and self.connected and self._listener is not None:
            self._listener.listen(usable_backlog(max(self.backlog, DEFAULT_BACKLOG)))
            self._open_gate()

    def doRead(self) -> None:  # noqa: N802
        """Accept waiting clients as Twisted does, but drop none when descriptors run out: they wait."""
        for _ in range(_BATCH):
            try:
                sock, peer = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not is_of_the_connection(error):
                    self.stopReading()
                    self._run_short(error)
                    return
            else:
                try:
                    _serve(sock, peer, self.factory, self.reactor, self)
                except Exception:
                    twisted_log.err(None, f"{', '.join(self.addresses)} cannot serve {peer}")

    def _run_short(self, error: OSError) -> None:
        if self._shortage is None:
            self._shortage = Shortage(", ".join(self.addresses), self.startReading)
        self._shortage.report(error)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """Accept the clients in the kernel's queue, and close the listener."""
        if self._shortage is not None:
            self._shortage.end()
        # Not when `stopListening` is called: clients that connect in between would be reset. Those that wait
        # while the gate is shut belong to the other process.
        if (
            self._is_accepting
            and not self._is_gated
            and self._listener is not None
            and not self._listener.shared
        ):
            if self._listener.sole:
                drop_new_connections(self.socket)
            self._accept_waiting()
        self._leave_gate()
        try:
            # Not `unix.Port`'s method, which removes the file: it belongs to the listener.
            tcp.Port.connectionLost(self, reason)
        finally:  # the factory's `doStop` may raise
            self._close_listener()

    def _accept_waiting(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        end = self.sessionno + _MOST
        while self.sessionno < end and poll.poll(0):
            before = self.sessionno
            self.doRead()
            if self.sessionno == before:  # no free descriptor, or the factory refuses
                return


class TcpPort(_StreamPort):
    """A TCP port. On ``::`` it has a companion port for IPv4, which opens and closes with it."""

    _beside: "TcpPort | None" = None

    def open(self, listener: Listener, *, own: bool = False) -> None:
        """Use the sockets of a listener, and accept connections as soon as the program is ready."""
        if len(listener.sockets) > 1:
            interface = "0.0.0.0"  # noqa: S104 - the program asked for every interface
            self._beside = TcpPort(self.port, self.factory, self.backlog, interface, self.reactor)  # type: ignore[arg-type]
            first = Listener(
                listener.endpoint, listener.sockets[:1], shared=listener.shared, sole=listener.sole
            )
            self._beside.use(first, first.sockets[0], own=own)
        super().open(listener, own=own)

    def start_accepting(self) -> None:
        """Accept connections."""
        super().start_accepting()
        if self._beside is not None:
            self._beside.start_accepting()

    def loseConnection(self, *arguments: Any) -> Any:  # noqa: N802
        if self._beside is not None:
            self._beside.loseConnection(*arguments)
            self._beside = None
        return super().loseConnection(*arguments)

    stopListening = loseConnection  # noqa: N815


class UnixPort(_StreamPort, unix.Port):
    """A port on a unix socket; the file belongs to the socket source."""

    def startListening(self) -> None:  # noqa: N802
        """Serve clients. Unlike Twisted's: the file's mode is already set, and the socket listens."""
        assert self._listener is not None
        factory: Any = self.factory
        named: Any = ILoggingContext(factory, None)
        name = type(factory).__name__ if named is None else named.logPrefix()
        twisted_log.msg(f"{name} starting on {', '.join(self.addresses)}")
        factory.doStart()
        self.socket = self._listener.sockets[-1]
        self.connected = True
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.startReading()


class UdpPort(_GatedPort, udp.Port):
    """A UDP port."""

    def open(self, listener: Listener, *, own: bool = False) -> None:
        """Use a listener's socket, and receive datagrams as soon as the program is ready."""
        *others, last = listener.sockets
        for other in others:  # of `::`, the one for IPv4
            other.close()
        self._is_own = own
        self._listener = listener
        self.addresses = listener.addresses[-1:]
        use_socket(self, last)
        self.startListening()
        self.reactor.connections.add_port(self)

    def start_accepting(self) -> None:
        if not self._is_accepting and self.connected:
            self._open_gate()

    def connectionLost(self, reason: Any = None) -> None:  # noqa: N802
        self._leave_gate()
        try:
            super().connectionLost(reason)
        finally:
            self._close_listener()
