"""One connection: a socket that tells when it is closed, and how it gets its transport.

The count of open connections is exact, for any protocol, and costs nothing where bytes pass: protocols and
transports are not wrapped, the socket at the bottom is of a class of ours. asyncio ends a connection with the
socket's ``close()``; uvloop closes the descriptor itself and then calls ``detach()``. A protocol that is
replaced (``set_protocol``) or TLS above it make no difference.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ClassVar

from tamed.net._endpoint import address_text

__all__ = ["Connection", "Opening", "Openings", "TlsConnection", "peer_text"]

Opening = Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.BaseProtocol]]
"""What ``loop.connect_accepted_socket`` and ``loop.create_connection`` are when called."""


class Connection(socket.socket):
    """A connected socket that calls ``told``, once, when it is closed or detached.

    ``transport`` is the one that it was opened with, None before and after. ``family`` and ``type`` are
    plain attributes here, because the base class makes an enum member anew whenever it is asked, and
    uvloop asks three times.
    """

    __slots__ = ("family", "opening", "told", "transport", "type")

    tls: ClassVar[bool] = False
    family: socket.AddressFamily
    type: socket.SocketKind

    def __init__(
        self,
        family: socket.AddressFamily,
        kind: socket.SocketKind,
        proto: int = 0,
        fileno: int | None = None,
        told: "Callable[[Connection], None] | None" = None,
    ) -> None:
        super().__init__(family, kind, proto, fileno)
        self.family = family
        self.type = kind
        self.told = told
        self.transport: asyncio.Transport | None = None
        self.opening: Opening | None = None

    def close(self) -> None:
        """Close the socket."""
        super().close()
        self._tell()

    def detach(self) -> int:
        """Give up the descriptor; whoever does so closes it."""
        fd = super().detach()
        self._tell()
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

    def _tell(self) -> None:
        told = self.told
        if told is not None:
            self.told = None
            self.transport = None  # asyncio's refers back to the socket
            told(self)


class TlsConnection(Connection):
    """A connection that speaks TLS; ``address`` is its peer's, to be told when a handshake has failed."""

    __slots__ = ("address",)

    tls = True
    address: Any

    @property
    def peer(self) -> str:
        """The other side's address, as one would type it."""
        return peer_text(self.address, self)


class Openings:
    """Gives connections their transports, on the running event loop.

    The loop's methods for that are coroutines that wait for callbacks in the loop's next round. A task for
    each connection would be a third of what our part of it costs, so the coroutines of a round are taken
    on by hand, together. ``failed`` is called for each connection that gets none, and whose socket is about
    to be closed, and ``opened``, if it is set, for the others.
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
        except Exception as error:  # of the protocol's factory, as a rule; there is no transport yet
            self._failed(connection, error)
            connection.close()
            return
        connection.opening = opening
        if not self._round:
            self._loop.call_soon(self._go_on_together)
        self._round.append((connection, waiter))

    def _go_on_together(self) -> None:
        this_round, self._round = self._round, []
        for connection, waiter in this_round:
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
        except Exception as error:
            connection.opening = None
            self._failed(connection, error)
        else:
            self._go_on_after(waiter, connection)


def peer_text(address: Any, sock: Any) -> str:
    """Write down a peer's address as one would type it.

    A unix socket's peer has none, as a rule: it is named by its process, ``unix (pid 123, uid 1000)``,
    where the system tells (SO_PEERCRED, unix(7)). ``sock`` is a socket, or a transport's stand-in for it.
    """
    if address:
        return address_text(address)
    if hasattr(socket, "SO_PEERCRED"):
        with suppress(OSError, AttributeError):  # it is closed
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            pid, uid, _ = _UCRED.unpack(credentials)
            return f"unix (pid {pid}, uid {uid})"
    return "unix"


_UCRED = struct.Struct("iII")
_NO_LINGERING = struct.pack("ii", 1, 0)
