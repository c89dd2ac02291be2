"""The common part of all connections of a web server."""

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol
from urllib.parse import quote

from tamed.net.listen import current_environment
from tamed.web._access import AccessFormat, access_writer
from tamed.web._proxies import TrustedProxies
from tamed.web.asgi import ASGIApplication, Scope
from tamed.web.limits import HttpLimits

__all__ = ["ServerContext", "WebSocketFactory", "WebSocketSession"]


class WebSocketSession(Protocol):
    """A WebSocket that replaces the protocol of a connection."""

    def begin(self, rest: bytes) -> None:
        """Begin with the handshake; ``rest`` is the data that followed the request."""
        ...

    def connection_draining(self) -> None:
        """End soon, because the server stops."""
        ...


WebSocketFactory = Callable[["ServerContext", asyncio.Transport, Scope, bool], WebSocketSession]
"""Creates a WebSocket from a transport and a scope; the last argument is whether writing is paused."""


class ServerContext:
    """The application, and the settings for its requests."""

    def __init__(
        self,
        application: ASGIApplication,
        state: dict[str, Any],
        limits: HttpLimits,
        *,
        trusted: TrustedProxies,
        access_format: AccessFormat | None = None,
        root_path: str = "",
        drain_timeout: float | None = None,
        websocket: "WebSocketFactory | None" = None,
        no_websocket: str = "",
    ) -> None:
        self.application = application
        self.state = state
        """The application's lifespan state; each request gets a copy."""
        self.limits = limits
        self.trusted = trusted
        self.log_access = access_writer(access_format)
        self.root_path = root_path
        self.raw_root_path = quote(root_path).encode("ascii")
        self._drain_timeout = drain_timeout
        self.websocket = websocket
        self.no_websocket = no_websocket
        """The reason why there is no ``websocket``."""
        self.tasks: set[asyncio.Task[None]] = set()
        """The tasks of applications that answer a request, or still work after their answer."""
        self._second = 0.0
        self._date = b""

    @property
    def drain_timeout(self) -> float:
        """The drain timeout in seconds: the server's own, or that of its environment."""
        own = self._drain_timeout
        return current_environment().drain_timeout if own is None else own

    def date(self) -> bytes:
        """Return the line of the header ``Date``, computed once a second."""
        now = time.time()
        if not 0.0 <= now - self._second < 1.0:
            self._second = now // 1
            self._date = b"date: " + formatdate(self._second, usegmt=True).encode() + b"\r\n"
        return self._date
