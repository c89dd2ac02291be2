"""Servers whose connections are served by a protocol, or by a coroutine with a reader and a writer.

Peers may disconnect at any moment, which is no fault of the application. Event loops report a closed
connection in many ways. asyncio's own loop drops data that is written to it, with a warning from the sixth
time on, or raises AttributeError if there was buffered data when it was closed; uvloop raises RuntimeError.
For the address of such a connection, asyncio's loop returns the old one, and uvloop raises AttributeError.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, Unpack, cast

from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.net._compat import is_error_of_closed_connection, retrieve_close_error
from tamed.net._connection import Connection, close_when_sent, peer_text
from tamed.net.accept import OnAccept
from tamed.net.listen import Endpoints, Listener
from tamed.net.server import Server, ServerOptions
from tamed.service.service import require_function

__all__ = ["ProtocolServer", "StreamHandler", "StreamServer"]

log = own_logger("tamed.net")

_GONE: Final = frozenset(
    {errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT}
)
"""The errors of an unreachable or disconnected peer, besides those of ConnectionError."""


class ProtocolServer(Server):
    """Serves each connection with a protocol from ``protocol_factory``; `Server` has the options.

    Protocols are used as by ``loop.create_server``. A connection has been served to its end when its
    protocol, or its peer, has closed it. A protocol may have one more method, ``connection_draining()``,
    which is called when the server stops: one that keeps connections open between requests should close those
    that wait for a request, and the others after the next answer. For connections accepted during the stop it
    is called just after ``connection_made``; their peers have no answer yet. While the `Gate` of the
    `ServerEnvironment` is shut, other processes serve already, so a connection may wait for its next request;
    when the daemon stops meanwhile, the gate opens, and ``connection_draining()`` is called again.
    """

    def __init__(
        self,
        endpoint: Endpoints,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        **options: Unpack[ServerOptions],
    ) -> None:
        super().__init__(endpoint, **options)
        require_function(self, "protocol factory", protocol_factory)
        self._protocol_factory = protocol_factory

    def _on_accept_of(self, listener: Listener, sock: socket.socket) -> OnAccept:
        def make(connection: Connection, _: Any) -> asyncio.BaseProtocol:
            return _Introduction(self._protocol_factory(), partial(self._not_opened, connection))

        return self._open_transports(listener, sock, make)

    def _notify_draining(self) -> None:
        for connection in tuple(self._open):
            self._notify(connection)
        for opener in self._openers:
            opener.opened = self._notify

    def _notify(self, connection: Connection) -> None:
        if connection.transport is None:  # it is notified when it has one
            return
        notify = getattr(connection.transport.get_protocol(), "connection_draining", None)
        if notify is not None:
            try:
                notify()
            except Exception:
                log.exception("%s: connection_draining failed", self.full_name)


class _Introduction(asyncio.Protocol):
    """Calls ``connection_made`` of a protocol and replaces itself with it; aborts if that raises.

    Otherwise uvloop would not read after an exception, and not detect that the client disconnects.
    """

    __slots__ = ("_failed", "_protocol")

    def __init__(self, protocol: asyncio.BaseProtocol, failed: Callable[[BaseException], None]) -> None:
        self._protocol = protocol
        self._failed = failed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_protocol(self._protocol)
        try:
            self._protocol.connection_made(transport)
        except Exception as error:
            try:
                self._failed(error)
            finally:
                cast(asyncio.Transport, transport).abort()


StreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""The coroutine function that serves one connection."""


class StreamServer(Server):
    """Serves each connection with ``await handler(reader, writer)``; `Server` has the options.

    A handler may write its answer and return: the connection is closed when all of it is sent, and is open
    until then. Unread input is discarded. An exception of a handler is logged with the peer and a traceback,
    and the connection is aborted; if the peer has disconnected, that is one line. A stop waits for handlers
    too, and cancels them at the drain deadline.

    ``limit`` is that of the reader, in bytes (see `asyncio.StreamReader`).
    """

    def __init__(
        self,
        endpoint: Endpoints,
        handler: StreamHandler,
        *,
        limit: int = 64 * 1024,
        **options: Unpack[ServerOptions],
    ) -> None:
        super().__init__(endpoint, **options)
        require_function(self, "handler", handler)
        self._handler = handler
        self._limit = limit
        # The event loop itself has only weak references to tasks.
        self._handling: dict[Connection, asyncio.Task[None]] = {}

    def _on_accept_of(self, listener: Listener, sock: socket.socket) -> OnAccept:
        loop, limit = asyncio.get_running_loop(), self._limit

        def make(connection: Connection, address: Any) -> asyncio.BaseProtocol:
            reader = asyncio.StreamReader(limit, loop)
            return _StreamProtocol(reader, partial(connected, connection, address, reader), loop)

        def connected(
            connection: Connection, address: Any, reader: asyncio.StreamReader, transport: asyncio.Transport
        ) -> None:
            # Not a coroutine: asyncio would create the task, and before Python 3.12 lose its exception.
            writer = _Writer(transport, reader, address, loop)
            task = self._handling[connection] = loop.create_task(self._handle(connection, reader, writer))
            task.add_done_callback(partial(self._handled, connection))

        return self._open_transports(listener, sock, make)

    async def _handle(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._handler(reader, writer)
        except Exception as error:
            try:
                self._report(error, reader, writer)
            finally:
                writer.transport.abort()
        except BaseException:
            writer.transport.abort()
            raise
        else:
            close_when_sent(cast(asyncio.Transport, writer.transport), connection, writer)

    def _handled(self, connection: Connection, task: "asyncio.Task[None]") -> None:
        """Record that a handler has ended, also if it was cancelled before it began."""
        self._handling.pop(connection, None)
        if task.cancelled():
            connection.abort()
        if self._idle is not None:
            self._check_done()

    def _report(self, error: Exception, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = peer_text(writer.get_extra_info("peername"), writer.get_extra_info("socket"))
        if _peer_left(error, reader, writer):
            log.info("%s lost %s: %s", self.full_name, peer, reason(error))
        else:
            log.error("%s failed to serve %s", self.full_name, peer, exc_info=error)

    def _busy(self) -> bool:
        return bool(self._handling) or super()._busy()

    def _left(self) -> Iterable[str]:
        yield from super()._left()
        alone = len(self._handling.keys() - self._open.keys())
        if alone:
            yield f"{alone} handler{'s' * (alone > 1)} of closed connections"

    def _abort_all(self) -> None:
        for task in tuple(self._handling.values()):
            task.cancel()
        super()._abort_all()

    def _forget(self) -> None:
        self._handling.clear()
        super()._forget()


def _peer_left(error: Exception, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Return whether the peer caused a handler's error, and not another connection of the handler."""
    if error is reader.exception():
        return True
    gone = writer.is_closing() or reader.at_eof()
    if isinstance(error, OSError):
        return gone and (isinstance(error, ConnectionError) or error.errno in _GONE)
    return gone and (isinstance(error, asyncio.IncompleteReadError) or is_error_of_closed_connection(error))


class _StreamProtocol(asyncio.StreamReaderProtocol):
    """Feeds a reader. ``is_over`` is whether the peer has ended both sides: in TLS they end together.

    ``connected`` is called with the transport. asyncio would call it with a writer of its own, which closes
    the connection when it is not kept, from Python 3.13 on.
    """

    is_over = False

    def __init__(
        self,
        reader: asyncio.StreamReader,
        connected: Callable[[asyncio.Transport], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(reader, loop=loop)
        self._connected = connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connected(cast(asyncio.Transport, transport))

    def eof_received(self) -> bool | None:
        """Record the end of the peer's data; return whether our side stays open."""
        stays_open = super().eof_received()
        self.is_over = not stays_open
        return stays_open

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        retrieve_close_error(self)


class _Writer(asyncio.StreamWriter):
    """A writer to a peer that may disconnect at any moment; only `drain` and the reader report that.

    Data that is written after that is dropped. Otherwise uvloop raises RuntimeError, and asyncio's own loop
    logs a warning. ``peername`` is the accepted address, also after the peer has disconnected.
    """

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        reader: asyncio.StreamReader,
        address: Any,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._stream = cast(_StreamProtocol, transport.get_protocol())
        super().__init__(transport, self._stream, reader, loop)
        self._address = address

    def is_closing(self) -> bool:
        """Return whether no more data can be sent."""
        return self._stream.is_over or super().is_closing()

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        if not self.is_closing():
            super().write(data)

    def writelines(self, data: "Iterable[bytes | bytearray | memoryview[Any]]") -> None:
        if not self.is_closing():
            super().writelines(data)

    def write_eof(self) -> None:
        if not self.is_closing():
            try:
                super().write_eof()
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about the connection, or the default if it is closed."""
        if name == "peername":
            return self._address
        try:
            return super().get_extra_info(name, default)
        except (AttributeError, OSError):  # of uvloop, which reads it from the socket
            return default
