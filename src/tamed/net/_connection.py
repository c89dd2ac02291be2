"""One connection: a socket that tells when it is closed, and how it gets its transport.

The count of open connections is exact, for any protocol, and costs nothing where bytes pass: protocols and
transports are not wrapped, what they have for a socket is of a class of ours. asyncio ends a connection with
the socket's ``close()``; uvloop closes the descriptor itself and then calls ``detach()``, or ``close()`` if
it is no socket. A protocol that is replaced (``set_protocol``) or TLS above it make no difference.
"""

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ClassVar, Final, Self

from tamed._os.unix_sockets import peer_credentials
from tamed.net.endpoint import address_text

__all__ = [
    "BorrowedSocket",
    "Connection",
    "DescriptorConnection",
    "Opening",
    "SocketConnection",
    "TlsConnection",
    "TransportOpener",
    "connection_class",
    "peer_text",
]

Opening = Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.BaseProtocol]]
"""What ``loop.connect_accepted_socket`` and ``loop.create_connection`` are when called."""


_NO_SLOTS: Final[tuple[str, ...]] = ()  # a socket cannot have those of a second base; each class has its own


class Connection:
    """What a server knows of a connection, which calls ``on_closed``, once, when its descriptor is closed.

    Event loops take it for the socket. ``transport`` is the one that it was opened with, None before and
    after.
    """

    __slots__ = _NO_SLOTS

    tls: ClassVar[bool] = False
    on_closed: Callable[[Any], None] | None
    transport: asyncio.Transport | None
    opening: Opening | None

    def fileno(self) -> int:
        """Return the descriptor, or -1 when it is closed."""
        raise NotImplementedError

    def drop(self) -> None:
        """Close the descriptor, which no transport has."""
        raise NotImplementedError

    def as_socket(self) -> socket.SocketType:
        """Return a socket object to ask. Raises OSError if the descriptor is closed."""
        raise NotImplementedError

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
            self.drop()

    def reset_at_close(self) -> None:
        """Have the peer see a reset instead of an end, when this is closed (SO_LINGER, socket(7))."""
        with suppress(OSError):  # it is closed
            self.as_socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)

    @property
    def peer(self) -> str:
        """The other side's address, as one would type it, while there is another side."""
        try:
            sock = self.as_socket()
            return peer_text(sock.getpeername(), sock)
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


class SocketConnection(socket.socket, Connection):
    """A connection that is a socket: for asyncio's loops, and wherever we use it ourselves.

    ``family`` and ``type`` are plain attributes, because the base class makes an enum member anew whenever it
    is asked, and loops ask several times.
    """

    __slots__ = ("family", "on_closed", "opening", "transport", "type")

    family: socket.AddressFamily
    type: socket.SocketKind

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
        self.on_closed = on_closed
        self.transport = None
        self.opening = None

    def close(self) -> None:
        """Close the socket."""
        try:
            super().close()
        finally:  # close(2) may fail, and has closed it even so
            self._notify_closed()

    def detach(self) -> int:
        """Give up the descriptor; whoever does so closes it."""
        fd = super().detach()
        self._notify_closed()
        return fd

    def drop(self) -> None:
        """Close the descriptor."""
        self.close()

    def as_socket(self) -> socket.SocketType:
        """Return this."""
        return self


class DescriptorConnection(Connection):
    """A connection that is no socket, for uvloop, which takes any object with a descriptor.

    To make a socket would cost a system call, getsockname(2), and memory for nothing: uvloop asks for the
    descriptor, closes it itself, and calls ``close()`` then.
    """

    __slots__ = ("_fd", "family", "on_closed", "opening", "transport", "type")

    def __init__(
        self,
        family: socket.AddressFamily,
        kind: socket.SocketKind,
        proto: int,
        fileno: int,
        on_closed: "Callable[[Self], None] | None",
    ) -> None:
        self._fd = fileno
        self.family = family
        self.type = kind
        self.on_closed = on_closed
        self.transport = None
        self.opening = None

    def fileno(self) -> int:
        """Return the descriptor, or -1 when it is closed."""
        return self._fd

    def close(self) -> None:
        """Take note that the descriptor is closed."""
        self._fd = -1
        self._notify_closed()

    def drop(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            socket.close(self._fd)
            self.close()

    def as_socket(self) -> socket.SocketType:
        """Return a new socket object."""
        if self._fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return BorrowedSocket(self.family, self.type, 0, self._fd)


class BorrowedSocket(socket.SocketType):
    """A socket object that closes nothing when it goes, and serves for each descriptor of its number in turn.

    To make one for each connection would cost a system call each, getsockname(2). This is the C type that
    `socket.socket` is made of: there is nothing in Python to be run for it.
    """

    __slots__ = ()

    def __init__(self, family: int, kind: int, proto: int, fileno: int) -> None:
        super().__init__(family, kind, proto, fileno)
        self.setblocking(False)  # or a program's ``socket.setdefaulttimeout`` would have it wait

    def __del__(self) -> None:
        self.detach()


def connection_class(loop: asyncio.AbstractEventLoop) -> type[SocketConnection] | type[DescriptorConnection]:
    """Return what a loop's ``connect_accepted_socket`` is given."""
    uvloop = sys.modules.get("uvloop")
    return DescriptorConnection if uvloop and isinstance(loop, uvloop.Loop) else SocketConnection


class TlsConnection(SocketConnection):
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
        except BaseException as error:  # of the protocol's factory, as a rule; there is no transport yet
            try:
                self._fail(connection, error)
            finally:
                connection.drop()
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
