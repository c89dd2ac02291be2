"""One connection: a socket that reports when it is closed, and how it gets its transport.

The count of open connections is exact, for any protocol, and costs nothing where bytes pass: protocols and
transports are not wrapped, what they have for a socket is of a class of ours. asyncio ends a connection with
the socket's ``close()``; uvloop closes the descriptor itself and then calls ``detach()``. A protocol that is
replaced (``set_protocol``) or TLS above it make no difference.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ClassVar, Self

from tamed._os.unix_sockets import peer_credentials
from tamed.net.endpoint import address_text

__all__ = ["Connection", "Opening", "TlsConnection", "TransportOpener", "peer_text"]

Opening = Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.BaseProtocol]]
"""What ``loop.connect_accepted_socket`` and ``loop.create_connection`` return when they are called."""


class Connection(socket.socket):
    """A connection's socket. It calls ``on_closed``, once, when its descriptor is closed.

    ``transport`` is the one that it was opened with, None before and after. ``family`` and ``type`` are plain
    attributes, because the base class makes an enum member anew on each access, and loops access them several
    times.
    """

    __slots__ = ("family", "on_closed", "opening", "transport", "type")

    tls: ClassVar[bool] = False
    family: socket.AddressFamily
    type: socket.SocketKind
    transport: asyncio.Transport | None
    opening: Opening | None

    def __init__(
        self,
        family: socket.AddressFamily,
        kind: socket.SocketKind,
        proto: int = 0,
        fileno: int | None = None,
        on_closed: "Callable[[Self], None] | None" = None,
    ) -> None:
        super().__init__(family, kind, proto, fileno)
        self.family = family
        self.type = kind
        self.on_closed: Callable[[Any], None] | None = on_closed
        self.transport = None
        self.opening = None

    def close(self) -> None:
        """Close the socket, which no transport has."""
        try:
            super().close()
        finally:  # close(2) may fail, and has closed it even so
            self._notify_closed()

    def detach(self) -> int:
        """Give up the descriptor; the caller closes it."""
        fd = super().detach()
        self._notify_closed()
        return fd

    def abort(self) -> None:
        """End the connection with a reset, without sending what is still to be sent.

        An orderly end would have the peer take what it got for the whole.
        """
        self.reset_at_close()
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            # In the next round, as uvloop crashes if its transport is closed before `connection_made`.
            asyncio.get_running_loop().call_soon(self._abort_opening)
        else:
            self.close()

    def reset_at_close(self) -> None:
        """Have the peer see a reset instead of an end, when this is closed (SO_LINGER, socket(7))."""
        with suppress(OSError):  # it is closed
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)

    @property
    def peer(self) -> str:
        """The other side's address, as one would type it, while there is another side."""
        try:
            return peer_text(self.getpeername(), self)
        except OSError:
            return "a peer that is gone"

    def _abort_opening(self) -> None:
        opening, self.opening = self.opening, None
        if opening is not None:
            opening.close()
        elif self.transport is not None:
            self.transport.abort()

    def _notify_closed(self) -> None:
        on_closed = self.on_closed
        if on_closed is not None:
            self.on_closed = None
            self.transport = None  # asyncio's refers back to the socket
            on_closed(self)


class TlsConnection(Connection):
    """A connection that speaks TLS; ``address`` is its peer's, to be logged when a handshake has failed."""

    __slots__ = ("address",)

    tls = True
    address: Any

    @property
    def peer(self) -> str:
        """The other side's address, as one would type it."""
        return peer_text(self.address, self)


class TransportOpener:
    """Gives connections their transports, on the running event loop.

    The loop's methods for that are coroutines that wait for callbacks in the loop's next round. Instead of a
    task for each, the coroutines of a round are stepped by hand, together. That wins 16 % of the CPU of a
    short connection of a `StreamServer` on uvloop, and 3 % to 22 % with other servers and loops, measured
    with bench/openings.py. ``failed`` is called for each connection that gets no transport, and whose socket
    is about to be closed, and ``opened``, if it is set, for the others.
    """

    def __init__(self, failed: Callable[[Connection, BaseException], None]) -> None:
        self.opened: Callable[[Connection], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._failed = failed
        self._round: list[tuple[Connection, asyncio.Future[Any]]] = []

    def begin(self, connection: Connection, opening: Opening) -> None:
        """Open a connection by ``loop.connect_accepted_socket`` or ``loop.create_connection``."""
        try:
            waiter = opening.send(None)
        except BaseException as error:  # of the protocol's factory, as a rule; there is no transport yet
            try:
                self._fail(connection, error)
            finally:
                connection.close()
            return
        connection.opening = opening
        if not self._round:
            self._loop.call_soon(self._end_round)
        self._round.append((connection, waiter))

    def _end_round(self) -> None:
        """Leave this round for the next turn of the loop, which connects the protocols of all first."""
        self._loop.call_soon(self._go_on_together, self._round)
        self._round = []

    def _go_on_together(self, connections: "list[tuple[Connection, asyncio.Future[Any]]]") -> None:
        for connection, waiter in connections:
            if waiter.done():
                self._go_on(connection, waiter)
            else:
                self._go_on_after(waiter, connection)

    def _go_on_after(self, waiter: "asyncio.Future[Any]", connection: Connection) -> None:
        """Wait for what takes more than a round: a TLS handshake."""
        waiter.add_done_callback(lambda waiter: self._go_on(connection, waiter))

    def _go_on(self, connection: Connection, waiter: "asyncio.Future[Any]") -> None:
        opening = connection.opening
        if opening is None:  # aborted; nobody else will ask how it ended, and the loop would complain of that
            waiter.cancelled() or waiter.exception()
            return
        try:
            waiter = opening.send(None)
        except StopIteration as done:
            connection.transport = done.value[0]
            connection.opening = None
            if self.opened is not None:
                self.opened(connection)
        except BaseException as error:
            connection.opening = None
            self._fail(connection, error)
        else:
            self._go_on_after(waiter, connection)

    def _fail(self, connection: Connection, error: BaseException) -> None:
        """Tell of one connection; the others of the round go on, whatever it raised but a wish to end."""
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise error
        self._failed(connection, error)


def peer_text(address: Any, sock: Any) -> str:
    """Write down a peer's address as one would type it.

    A unix socket's peer has none, as a rule: it is named by its process, ``unix (pid 123, uid 1000)``
    (SO_PEERCRED, unix(7)). ``sock`` is a socket, or a transport's stand-in for it.
    """
    if address:
        return address_text(address)
    with suppress(OSError, AttributeError, ValueError):  # it is closed
        peer = peer_credentials(sock)
        return f"unix (pid {peer.pid}, uid {peer.uid})"
    return "unix"


_NO_LINGERING = struct.pack("ii", 1, 0)
