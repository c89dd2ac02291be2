"""The reactor's ports on sockets that were bound by somebody else.

They are Twisted's own, as used by ``adoptStreamPort``, with what they lack: several sockets for one address,
a last look into the kernel's queue when they close, and word of the connections that come by them.

And they let nobody in before the program is ready. Under twistd nothing can come between the moment that a
program listens and the end of its ``startService``, because no loop runs; here one does, and the socket may
be one on which other workers listen already. From then on they heed the gate of the `Surroundings`, if other
processes have their sockets too.
"""

import select
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, udp, unix
from twisted.python import log

from tamed.net import (
    DEFAULT_BACKLOG,
    Gate,
    Listener,
    Shortage,
    current,
    is_of_the_connection,
    turn_away,
    usable_backlog,
)

if TYPE_CHECKING:
    from tamed.twisted._connections import Connections

__all__ = ["TcpConnection", "TcpPort", "UdpPort", "UnixConnection", "UnixPort"]

_BATCH = 16  # connections that a port accepts before anything else has its turn
_IPV6 = 4  # parts of a peer's address
_MOST = DEFAULT_BACKLOG
"""How many clients a port that closes still takes: a flood of new ones must not keep it from closing."""


class _Counted:
    """The part of a connection that counts it, whatever its protocol raises when it ends."""

    reactor: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.reactor.connections.begin(self)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        try:
            super().connectionLost(reason)  # type: ignore[misc]
        finally:
            self.reactor.connections.end(self)


class TcpConnection(_Counted, tcp.Server):
    """A connection that is counted."""


class UnixConnection(_Counted, unix.Server):
    """The same, on a unix socket."""


class _Door:
    """The part of a port that lets clients in, or does not.

    One that is this process's ``own`` does not heed the gate: nobody else could serve its clients.
    """

    _is_own = False
    _lets_in = False
    _is_held = False
    _gate: Gate | None = None

    def hold(self) -> None:
        """Let nobody in: the gate is shut. See `GateKeeper`."""
        self._is_held = True
        self.stopReading()  # type: ignore[attr-defined]

    def let_go(self) -> None:
        """Let clients in again."""
        self._is_held = False
        self.startReading()

    def startReading(self) -> None:  # noqa: N802
        """Look for clients, while they are let in."""
        if self._lets_in and not self._is_held:
            super().startReading()  # type: ignore[misc]

    def _open_door(self) -> None:
        self._lets_in = True
        if not self._is_own:
            self._gate = current().gate
            self._gate.add(self)
        self.startReading()

    def _close_door(self) -> None:
        if self._gate is not None:
            self._gate.remove(self)


class _StreamPort(_Door, tcp.Port):
    """What both kinds of stream port have in common.

    ``addresses`` are where it listens.
    """

    reactor: Any
    addresses: tuple[str, ...] = ()
    _listener: Listener | None = None
    _shortage: Shortage | None = None

    def open(self, listener: Listener, *, own: bool = False) -> None:
        """Take over the sockets of a listener, and let connections in as soon as the program is ready."""
        self._is_own = own
        self.addresses = listener.addresses
        self._take_over(listener, listener.sockets[-1])
        self._connections.opened(self)

    def let_in(self) -> None:
        """Let connections in. Raises Unavailable if another process listens on the same address meanwhile."""
        if not self._lets_in and self.connected and self._listener is not None:
            self._listener.listen(usable_backlog(max(self.backlog, DEFAULT_BACKLOG)))
            self._open_door()

    @property
    def _connections(self) -> "Connections":
        connections: Connections = self.reactor.connections
        return connections

    def _take_over(self, listener: Listener, sock: socket.socket) -> None:
        self._listener = listener
        self._preexistingSocket = sock
        try:
            self.startListening()
        except BaseException:  # of the factory's `doStart`
            listener.close()
            raise

    def doRead(self) -> None:  # noqa: N802
        """Accept who waits, as Twisted does, but close nobody when descriptors run out: they wait."""
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
                self._serve(sock, peer)

    def _serve(self, sock: socket.socket, peer: Any) -> None:
        try:
            if len(peer) == _IPV6:  # the scope of the address belongs to it
                numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
                peer = (socket.getnameinfo(peer, numeric)[0], *peer[1:])
            factory: Any = self.factory
            protocol = factory.buildProtocol(self._buildAddr(peer))
            if protocol is None:
                sock.close()
                return
            number, self.sessionno = self.sessionno, self.sessionno + 1
            protocol.makeConnection(self.transport(sock, protocol, peer, self, number, self.reactor))
        except Exception:
            log.err(None, f"{', '.join(self.addresses)} cannot serve {peer}")

    def _run_short(self, error: OSError) -> None:
        if self._shortage is None:
            self._shortage = Shortage(", ".join(self.addresses), self.startReading)
        self._shortage.report(error)

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        """Take those who wait in the kernel's queue, and give the socket back."""
        if self._shortage is not None:
            self._shortage.end()
        # Here and not when `stopListening` is called: whoever came in between would be cut off.
        # Those who wait while the gate is shut are the other process's.
        if self._lets_in and not self._is_held and self._listener is not None and not self._listener.shared:
            if self._listener.sole:
                turn_away(self.socket)
            self._take_who_waits()
        self._close_door()
        try:
            # Not that of `unix.Port`, which removes the file: it is the listener's.
            tcp.Port.connectionLost(self, reason)
        finally:  # the factory's `doStop` may raise
            self._connections.closed(self)
            if self._listener is not None:
                self._listener.close()

    def _take_who_waits(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        end = self.sessionno + _MOST
        while self.sessionno < end and poll.poll(0):
            before = self.sessionno
            self.doRead()
            if self.sessionno == before:  # it could not: out of descriptors, or the factory wants nobody
                return


class TcpPort(_StreamPort):
    """A TCP port. On ``::`` it has a port for IPv4 beside it, which opens and closes with it."""

    transport: Any = TcpConnection
    _beside: "TcpPort | None" = None

    def open(self, listener: Listener, *, own: bool = False) -> None:
        """Take over the sockets of a listener, and let connections in as soon as the program is ready."""
        if len(listener.sockets) > 1:
            interface = "0.0.0.0"  # noqa: S104 - the program asked for every interface
            self._beside = TcpPort(self.port, self.factory, self.backlog, interface, self.reactor)  # type: ignore[arg-type]
            beside = Listener(
                listener.endpoint, listener.sockets[:1], shared=listener.shared, sole=listener.sole
            )
            self._beside._is_own = own
            self._beside._take_over(beside, beside.sockets[0])
        super().open(listener, own=own)

    def let_in(self) -> None:
        """Let connections in."""
        super().let_in()
        if self._beside is not None:
            self._beside.let_in()

    def loseConnection(self, *arguments: Any) -> Any:  # noqa: N802
        """Listen no more."""
        if self._beside is not None:
            self._beside.loseConnection(*arguments)
            self._beside = None
        return super().loseConnection(*arguments)

    stopListening = loseConnection  # noqa: N815


class UnixPort(_StreamPort, unix.Port):
    """A port on a unix socket; the file belongs to whoever has bound it."""

    transport: Any = UnixConnection

    def startListening(self) -> None:  # noqa: N802
        """Serve those who connect. Not as Twisted does: the file's mode is set, and it listens already."""
        assert self._preexistingSocket is not None
        assert self.factory is not None
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        self._shouldShutdown = False
        log.msg(f"{self._getLogPrefix(self.factory)} starting on {', '.join(self.addresses)}")
        self.factory.doStart()
        self.connected = True
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        self.startReading()


class UdpPort(_Door, udp.Port):
    """A UDP port."""

    reactor: Any
    addresses: tuple[str, ...] = ()
    _listener: Listener | None = None

    def open(self, listener: Listener, *, own: bool = False) -> None:
        """Take over a listener's socket, and let datagrams in as soon as the program is ready."""
        *others, last = listener.sockets
        for other in others:  # of `::`, the one for IPv4
            other.close()
        self._is_own = own
        self._listener = listener
        self.addresses = listener.addresses[-1:]
        self._preexistingSocket: Any = last
        self.startListening()
        self.reactor.connections.opened(self)

    def let_in(self) -> None:
        """Let datagrams in."""
        if not self._lets_in and self.connected:
            self._open_door()

    def connectionLost(self, reason: Any = None) -> None:  # noqa: N802
        """Give the socket back."""
        self._close_door()
        try:
            super().connectionLost(reason)
        finally:
            self.reactor.connections.closed(self)
            if self._listener is not None:
                self._listener.close()
