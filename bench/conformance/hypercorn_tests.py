"""A plugin for hypercorn's own tests: those that drive its server of a connection drive Tamed's instead.

They make it with a reader and a writer in memory.
"""

import asyncio
from importlib import import_module
from typing import Any

from bench.conformance.connection import MemoryConnection, MemoryTransport, context_of
from tamed.web.limits import WebSocketLimits


class TamedConnection:
    """Stands where hypercorn's ``TCPServer`` does."""

    def __init__(  # noqa: PLR0917 - the signature is hypercorn's
        self, app: Any, loop: Any, config: Any, context: Any, state: Any, reader: Any, writer: Any
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._context = context_of(
            app.app,
            state=state,
            root_path=config.root_path,
            keep_alive=config.keep_alive_timeout,
            head_timeout=config.keep_alive_timeout,
            websocket=WebSocketLimits(),
        )

    async def run(self) -> None:
        """Serve the connection until its client has sent all, and its requests are answered."""
        transport = MemoryTransport(self.writer.write, self.writer.close, lambda _: None)
        connection = MemoryConnection(self._context, transport, http2=self.writer.http2)
        while data := await self.reader.read(65536):
            connection.data_received(data)
        if self._context.tasks:
            await asyncio.wait(self._context.tasks)
        connection.connection_lost()


import_module("hypercorn.asyncio.tcp_server").TCPServer = TamedConnection  # type: ignore[attr-defined]
