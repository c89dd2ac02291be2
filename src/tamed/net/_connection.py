"""One connection: a socket that reports when it is closed, the opening of its transport, and its close.

The count of open connections is exact, for any protocol, and costs nothing for the data: protocols and
transports are not wrapped; their socket is an object of our class. asyncio ends a connection with the
socket's ``close()``; uvloop closes the descriptor itself and then calls ``detach()``. So neither
``set_protocol`` nor TLS affects the count.
"""

import asyncio
import fcntl
import logging
import os
import socket
import termios
from array import array
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ClassVar, Final, Self

from tamed._os.descriptors import reset_at_close
from tamed._os.unix_sockets import peer_credentials
from tamed.net._compat import WARNINGS_OF_WRITES, is_error_of_closed_connection
from tamed.net.endpoint import address_text

__all__ = [
    "Connection",
    "Opening",
    "TlsConnection",
    "TransportOpener",
    "close_when_sent",
    "discard_input",
    "filter_disconnects",
    "peer_text",
]

Opening = Coroutine[Any, Any, tuple[asyncio.Transport, asyncio.BaseProtocol]]
"""The coroutine of ``loop.connect_accepted_socket`` or ``loop.create_connection``."""

_MUCH: Final = 64 * 1024
"""Bytes; more will not be sent in the loop's next iteration. It is asyncio's own high-water mark."""

_CHUNK: Final = 64 * 1024
_NOTHING: Final = array("i", [0])


class Connection(socket.socket):
    """A connection's socket. It calls ``on_closed``, once, when its descriptor is closed.

    ``transport`` is that of the open connection, None before and after. ``family`` and ``type`` are plain
    attributes, because the base class looks up an enum member on each access, and event loops access them
    several times.
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
        """Close the socket, if no transport uses it."""
        try:
            super().close()
        finally:  # if close(2) fails, the descriptor is closed anyway
            self._notify_closed()

    def detach(self) -> int:
        """Return the descriptor; the caller closes it."""
        fd = super().detach()
        self._notify_closed()
        return fd

    def abort(self) -> None:
        """End the connection with a reset, without sending buffered data.

        After an orderly end the peer would believe that it has received everything.
        """
        self.reset_at_close()
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            # In the next iteration: uvloop crashes if its transport is closed before `connection_made`.
            asyncio.get_running_loop().call_soon(self._abort_opening)
        else:
            self.close()

    def reset_at_close(self) -> None:
        """Make the close of this socket send a reset to the peer."""
        with suppress(OSError):  # it is closed
            reset_at_close(self)

    @property
    def peer(self) -> str:
        """The peer's address, as on the command line."""
        try:
            return peer_text(self.getpeername(), self)
        except OSError:
            return "a disconnected peer"

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
    """A connection with TLS; ``address`` is its peer's, for the log when a handshake fails."""

    __slots__ = ("address",)

    tls = True
    address: Any

    @property
    def peer(self) -> str:
        return peer_text(self.address, self)


class TransportOpener:
    """Opens the transports of connections, on the running event loop.

    The loop's methods for that are coroutines that wait for callbacks in the loop's next iteration. Instead
    of a task for each, the coroutines of one iteration are stepped by hand, together. That saves 16 % of the
    CPU time of a short connection of a `StreamServer` on uvloop, and 3 % to 22 % with other servers and
    loops, measured with bench/openings.py. ``failed`` is called for each connection without a transport, just
    before its socket is closed, and ``opened``, if it is set, for the others.
    """

    def __init__(self, failed: Callable[[Connection, BaseException], None]) -> None:
        self.opened: Callable[[Connection], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._failed = failed
        self._iteration: list[tuple[Connection, asyncio.Future[Any]]] = []

    def begin(self, connection: Connection, opening: Opening) -> None:
        """Open a connection by ``loop.connect_accepted_socket`` or ``loop.create_connection``."""
        try:
            waiter = opening.send(None)
        except BaseException as error:  # usually of the protocol's factory; there is no transport yet
            try:
                self._fail(connection, error)
            finally:
                connection.close()
            return
        connection.opening = opening
        if not self._iteration:
            self._loop.call_soon(self._end_iteration)
        self._iteration.append((connection, waiter))

    def _end_iteration(self) -> None:
        """Continue in the next iteration of the loop, which first calls `connection_made` of all."""
        self._loop.call_soon(self._continue_all, self._iteration)
        self._iteration = []

    def _continue_all(self, connections: "list[tuple[Connection, asyncio.Future[Any]]]") -> None:
        for connection, waiter in connections:
            if waiter.done():
                self._continue(connection, waiter)
            else:
                self._continue_after(waiter, connection)

    def _continue_after(self, waiter: "asyncio.Future[Any]", connection: Connection) -> None:
        """Wait for an opening that takes more than one iteration: a TLS handshake."""
        waiter.add_done_callback(lambda waiter: self._continue(connection, waiter))

    def _continue(self, connection: Connection, waiter: "asyncio.Future[Any]") -> None:
        opening = connection.opening
        if opening is None:  # aborted: retrieve the result, or the loop logs that it was never retrieved
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
            self._continue_after(waiter, connection)

    def _fail(self, connection: Connection, error: BaseException) -> None:
        """Report one failure; others continue, except after SystemExit and KeyboardInterrupt."""
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise error
        self._failed(connection, error)


def peer_text(address: Any, sock: Any) -> str:
    """Return a peer's address as on the command line.

    The peer of a unix socket usually has no address: it is named by its process, ``unix (pid 123, uid 1000)``
    (SO_PEERCRED, unix(7)). ``sock`` is a socket, or a transport's substitute for it.
    """
    if address:
        return address_text(address)
    with suppress(OSError, AttributeError, ValueError):  # it is closed
        peer = peer_credentials(sock)
        return f"unix (pid {peer.pid}, uid {peer.uid})"
    return "unix"


def discard_input(fd: int) -> None:
    """Discard the data that the peer of a socket has sent so far; the socket may be blocking or not."""
    # This runs for every connection, so there is no `suppress`. FIONREAD is four times cheaper than recv()
    # with its exception if there is no data; an ioctl with bytes instead of an array raises one internally.
    waiting = _NOTHING[:]
    try:
        fcntl.ioctl(fd, termios.FIONREAD, waiting)
        if waiting[0]:
            _read(fd, waiting[0])
    except OSError:  # the peer has reset the connection
        pass


def _read(fd: int, size: int) -> None:
    while size > 0 and (read := len(os.read(fd, min(size, _CHUNK)))):
        size -= read


def close_when_sent(
    transport: asyncio.Transport, connection: Connection, writer: asyncio.StreamWriter | None = None
) -> None:
    """Close a transport whose protocol has written everything, as soon as all of it is sent.

    A ``writer`` on it is kept until then: from Python 3.13 on, a writer without a reference closes its
    transport.
    """
    if transport.is_closing():
        return
    if transport.get_write_buffer_size() > _MUCH:
        transport.set_protocol(_Flushing(transport, writer, tls=connection.tls))
        transport.set_write_buffer_limits(high=1, low=0)
        transport.resume_reading()
        return
    if not connection.tls:
        discard_input(connection.fileno())
    transport.close()


class _Flushing(asyncio.Protocol):
    """Replaces a protocol that has written everything: discards input, and closes when all is sent."""

    def __init__(
        self, transport: asyncio.Transport, writer: asyncio.StreamWriter | None, *, tls: bool
    ) -> None:
        self._transport = transport
        self._writer = writer
        self._before = transport.get_protocol()
        self._tls = tls

    def eof_received(self) -> bool:
        # A client may end its own side and still read, but not in TLS.
        return not self._tls

    def resume_writing(self) -> None:
        # In the next iteration: the transport, which is about to check its empty buffer, must not be closed.
        asyncio.get_running_loop().call_soon(self._transport.close)

    def connection_lost(self, error: Exception | None) -> None:
        self._before.connection_lost(error)


def filter_disconnects() -> None:
    """Make the log of asyncio omit disconnected peers, or report them in one line."""
    logging.getLogger("asyncio").addFilter(_filter_record)


def _filter_record(record: logging.LogRecord) -> bool:
    if record.msg in WARNINGS_OF_WRITES:
        return False
    if record.exc_info and is_error_of_closed_connection(record.exc_info[1]):
        what = record.getMessage().partition("\n")[0]
        record.msg, record.args = "%s: its connection was closed already", (what,)
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True
