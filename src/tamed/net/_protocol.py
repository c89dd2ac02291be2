"""A server for any asyncio protocol."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Unpack, cast

from tamed._logger import own_logger
from tamed.net._accept import Take
from tamed.net._connection import Connection
from tamed.net._listening import Endpoints
from tamed.net._server import Server, ServerOptions
from tamed.net._source import Listener

__all__ = ["ProtocolServer"]

log = own_logger("tamed.net")


class ProtocolServer(Server):
    """Serves each connection by a protocol that ``protocol_factory`` makes; `Server` has the options.

    Protocols are used as ``loop.create_server`` would. A connection has been served to its end when its
    protocol, or its peer, has closed it. A protocol may have one method more, ``connection_draining()``,
    which is called once when the server stops: one that keeps connections open between requests should
    close those that wait for a request, and the others after the next answer. Connections accepted during
    the stop are told just after ``connection_made``; their peers have not been answered yet.
    """

    def __init__(
        self,
        endpoint: Endpoints,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        **options: Unpack[ServerOptions],
    ) -> None:
        super().__init__(endpoint, **options)
        self._protocol_factory = protocol_factory

    def _take_from(self, listener: Listener, sock: socket.socket) -> Take:
        def factory_for(connection: Connection, _: Any) -> Callable[[], asyncio.BaseProtocol]:
            return lambda: _Introduction(self._protocol_factory(), partial(self._not_opened, connection))

        return self._take_with_transport(listener, sock, factory_for)

    def _drain_begins(self) -> None:
        for connection in tuple(self._open):
            self._tell(connection)
        for openings in self._openings:
            openings.opened = self._tell

    def _tell(self, connection: Connection) -> None:
        if connection.transport is None:  # it is told when it has one
            return
        told = getattr(connection.transport.get_protocol(), "connection_draining", None)
        if told is not None:
            try:
                told()
            except Exception:
                log.exception("%s: connection_draining failed", self.full_name)


class _Introduction(asyncio.Protocol):
    """Stands for a protocol until it has its transport, and ends the connection if it does not take it.

    After an error of ``connection_made`` uvloop would not read, and never see that the client leaves.
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
