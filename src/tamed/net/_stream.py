"""A server whose connections are served by a coroutine with a reader and a writer."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Unpack, cast

from tamed._logger import own_logger
from tamed.errors import reason
from tamed.net._accept import Take
from tamed.net._connection import Connection, peer_text
from tamed.net._finish import close_when_sent
from tamed.net._leaving import StreamProtocol, Writer, peer_left
from tamed.net._listening import Endpoints
from tamed.net._server import Server, ServerOptions
from tamed.net._source import Listener

__all__ = ["StreamHandler", "StreamServer"]

log = own_logger("tamed.net")

StreamHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection."""


class StreamServer(Server):
    """Serves each connection by ``await handler(reader, writer)``; `Server` has the options.

    A handler may write its answer and return: the connection is closed when all of it was sent, and until
    then it counts as open. Input that the handler left unread is thrown away. A handler that raises is
    logged with its peer and a traceback, and the connection aborted; if it was the peer that left, that
    is one line. A stop waits for handlers too, and cancels them at the drain deadline.

    ``limit`` is the reader's, in bytes (see `asyncio.StreamReader`).
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
        self._handler = handler
        self._limit = limit
        # The event loop itself holds tasks weakly.
        self._handling: dict[Connection, asyncio.Task[None]] = {}

    def _take_from(self, listener: Listener, sock: socket.socket) -> Take:
        loop, limit = asyncio.get_running_loop(), self._limit

        def protocol_for(connection: Connection, address: Any) -> asyncio.BaseProtocol:
            reader = asyncio.StreamReader(limit, loop)
            return StreamProtocol(reader, partial(connected, connection, address, reader), loop)

        def connected(
            connection: Connection, address: Any, reader: asyncio.StreamReader, transport: asyncio.Transport
        ) -> None:
            # Not as a coroutine: asyncio would make the task, and until Python 3.12 forget what it raises.
            writer = Writer(transport, reader, address, loop)
            task = self._handling[connection] = loop.create_task(self._handle(connection, reader, writer))
            task.add_done_callback(partial(self._handled, connection))

        def factory_for(connection: Connection, address: Any) -> Callable[[], asyncio.BaseProtocol]:
            return partial(protocol_for, connection, address)

        return self._take_with_transport(listener, sock, factory_for)

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
        """Take note that a handler has ended, also if it was cancelled before it began."""
        self._handling.pop(connection, None)
        if task.cancelled():
            connection.abort()
        if self._idle is not None:
            self._look_if_done()

    def _report(self, error: Exception, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = peer_text(writer.get_extra_info("peername"), writer.get_extra_info("socket"))
        if peer_left(error, reader, writer):
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

    def _cut(self) -> None:
        for task in tuple(self._handling.values()):
            task.cancel()
        super()._cut()

    def _forget(self) -> None:
        self._handling.clear()
        super()._forget()
