"""What all connections of a web server have in common."""

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol
from urllib.parse import quote

from tamed.web._access import AccessFormat, access_writer
from tamed.web._proxies import TrustedProxies
from tamed.web.asgi import ASGIApplication, Scope
from tamed.web.limits import HttpLimits

__all__ = ["ServerContext", "WebSocketFactory", "WebSocketSession"]


class WebSocketSession(Protocol):
    """A WebSocket that takes the place of a connection's protocol."""

    def begin(self, rest: bytes) -> None:
        """Begin with the handshake; ``rest`` came behind the request."""
        ...

    def connection_draining(self) -> None:
        """End soon: the server stops."""
        ...


WebSocketFactory = Callable[["ServerContext", asyncio.Transport, Scope, bool], WebSocketSession]
"""Makes a WebSocket of a transport and a scope; the last argument tells whether the client is behind."""


class ServerContext:
    """The application, and how its requests are served."""

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
        """What the application keeps for all requests; each has a copy."""
        self.limits = limits
        self.trusted = trusted
        self.log_access = access_writer(access_format)
        self.root_path = root_path
        self.raw_root_path = quote(root_path).encode("ascii")
        self.drain_timeout = drain_timeout
        """Seconds that a drain may take; None for those of the server's environment."""
        self.websocket = websocket
        self.no_websocket = no_websocket
        """Why there is no ``websocket``."""
        self.tasks: set[asyncio.Task[None]] = set()
        """The applications that answer a request, or still work after their answer."""
        self._second = 0.0
        self._date = b""

    def date(self) -> bytes:
        """Return the line of the header ``Date``, made once a second."""
        now = time.time()
        if not 0.0 <= now - self._second < 1.0:
            self._second = now // 1
            self._date = b"date: " + formatdate(self._second, usegmt=True).encode() + b"\r\n"
        return self._date
