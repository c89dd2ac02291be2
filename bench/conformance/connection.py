"""A connection in memory: a protocol of the web server, and what the tests of another server read it by."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from tamed.web._context import ServerContext, TrustedProxies
from tamed.web._http1 import HttpConnection
from tamed.web._http2 import Http2Connection
from tamed.web._negotiation import Negotiation
from tamed.web._websocket import WebSocketConnection
from tamed.web.limits import Http2Limits, HttpLimits, WebSocketLimits

__all__ = ["MemoryConnection", "MemoryTransport", "context_of"]


class MemoryTransport(asyncio.Transport):
    """Writes by a function; once closed, from either side, it does nothing."""

    def __init__(self, write: Callable[[bytes], None], close: Callable[[], None], details: Any) -> None:
        super().__init__()
        self.is_paused = False
        self._write = write
        self._close = close
        self._details = details
        self._is_closed = False
        self._protocol: asyncio.BaseProtocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the other server's tests say of the connection."""
        found = self._details(name)
        return default if found is None else found

    def write(self, data: Any) -> None:
        """Hand on what is sent."""
        if data and not self._is_closed:
            self._write(bytes(data))

    def close(self) -> None:
        """Close it, once."""
        if not self._is_closed:
            self._is_closed = True
            self._close()

    def is_closing(self) -> bool:
        """Return whether it is closed."""
        return self._is_closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Take another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol of now."""
        return self._protocol

    def pause_reading(self) -> None:
        """Take note of it."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Take note of it."""
        self.is_paused = False

    def can_write_eof(self) -> bool:
        """Say that the end can be told: to these tests that is a closed connection."""
        return True

    write_eof = abort = close


def context_of(
    application: Any,
    *,
    state: dict[str, Any],
    root_path: str,
    keep_alive: float,
    head_timeout: float = 10.0,
    websocket: WebSocketLimits | None,
) -> ServerContext:
    """Return what connections have in common, as `WebServer` makes it."""
    context = ServerContext(
        application,
        state,
        HttpLimits(keep_alive=keep_alive, head_timeout=head_timeout),
        trusted=TrustedProxies(()),
        root_path=root_path,
        drain_timeout=10,
        no_websocket="the test has none",
    )
    if websocket is not None:
        context.websocket = partial(WebSocketConnection, websocket)
    return context


class MemoryConnection:
    """The server's side of a connection, of HTTP/2 or of the version that the first bytes tell."""

    def __init__(self, context: ServerContext, transport: MemoryTransport, *, http2: bool = False) -> None:
        make_http2 = partial(Http2Connection, context, Http2Limits())
        protocol = make_http2() if http2 else Negotiation(partial(HttpConnection, context), make_http2)
        self.transport = transport
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Give the server what its client has sent."""
        if not self.transport.is_closing():
            self._protocol.data_received(data)

    def drain(self) -> None:
        """Begin to stop the server."""
        self._protocol.connection_draining()

    def connection_lost(self) -> None:
        """Let the client leave."""
        self.transport.close()
        self._protocol.connection_lost(None)

    @property
    def _protocol(self) -> Any:
        return self.transport.get_protocol()
