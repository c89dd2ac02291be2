"""The web server as a service: an ASGI application, its start and stop, and its connections."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Unpack

from tamed.errors import MissingInput
from tamed.net.listen import Endpoints
from tamed.net.proxy_header import Network
from tamed.net.server import ServerOptions
from tamed.net.stream import ProtocolServer
from tamed.service.service import MultiService, Service
from tamed.web._access import AccessFormat
from tamed.web._context import ServerContext
from tamed.web._http1 import HttpConnection
from tamed.web._lifespan import Lifespan
from tamed.web._proxied import ProxiedConnection
from tamed.web._proxies import TrustedProxies
from tamed.web.asgi import ASGIApplication, Scope
from tamed.web.limits import Http2Limits, HttpLimits, WebSocketLimits

__all__ = ["AccessFormat", "WebServer"]

_GRACE: Final = 5.0
"""Seconds that an application has for its work after the answer, or after its client has left."""


class WebServer(MultiService):
    """Serves an ASGI application over HTTP and WebSocket, beside whatever else an application file has.

    It has three services: ``lifespan`` starts and stops the application, ``requests`` waits at a stop for
    work that the application still does after its answers, for five seconds, and ``server`` has the
    connections. Its arguments beside ``app`` and ``endpoints``:

    - ``state``: what requests find in ``scope["state"]``, beside what the application adds in its lifespan;
    - ``lifespan``: whether the application is told of its start and its stop (ASGI's lifespan protocol);
    - ``limits``: what a client may send, and how long it may take;
    - ``http2``: the same for connections of HTTP/2. Without it only HTTP/1.1 is spoken; with it the client
      chooses, in clear text by prior knowledge (RFC 9113, 3.3). Raises MissingInput without the package
      ``h2``;
    - ``websocket``: the same for WebSockets; or why none is served, for the log: a request for one is then
      answered with 404, as it is if the package ``websockets`` is not installed;
    - ``trusted``: addresses and networks of proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are
      believed; ``unix`` is every peer on a unix socket. Raises ValueError for what is neither;
    - ``proxy_from``: addresses and networks whose connections begin with a PROXY header, which names the
      client; ``unix`` is every peer on a unix socket. Not for ``tls://``, before which the header comes;
    - ``access_log``: the format of the lines of ``web.access``, None for no lines;
    - ``root_path``: the path below which a proxy has the application, and which it takes off requests;
    - the options of `tamed.net.server.Server`; by default 1000 connections, and 200 of an address.
    """

    def __init__(
        self,
        app: ASGIApplication,
        endpoints: Endpoints,
        *,
        state: Mapping[str, Any] | None = None,
        lifespan: bool = True,
        limits: HttpLimits | None = None,
        http2: Http2Limits | None = None,
        websocket: WebSocketLimits | str | None = None,
        trusted: Iterable[str] = (),
        proxy_from: Iterable[str] = (),
        access_log: AccessFormat | None = "short",
        root_path: str = "",
        **options: Unpack[ServerOptions],
    ) -> None:
        given = dict(state or {})
        starting = Lifespan(app, given) if lifespan else None
        context = ServerContext(
            app,
            given if starting is None else starting.app_state,
            limits or HttpLimits(),
            trusted=TrustedProxies(trusted),
            access_format=access_log,
            root_path=root_path.rstrip("/"),
            drain_timeout=options.get("drain_timeout"),
        )
        if isinstance(websocket, str):
            context.no_websocket = websocket
        else:
            _serve_websockets(context, websocket or WebSocketLimits())
        options.setdefault("max_connections", 1000)
        options.setdefault("max_connections_per_address", 200)
        name = options.pop("name", "web")
        options["name"] = "server"
        connect: Callable[..., Any] = partial(HttpConnection, context)
        if http2 is not None:
            connect, options["alpn"] = _negotiation(context, http2)
        if proxies := [Network.parse(each) for each in proxy_from]:
            connect = partial(ProxiedConnection, proxies, connect, context.limits.head_timeout)
        self._server = ProtocolServer(endpoints, connect, **options)
        before = [] if starting is None else [starting]
        super().__init__(name, *before, _PendingRequests(context.tasks), self._server)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that it listens on, once it is prepared."""
        return self._server.addresses


def _negotiation(
    context: ServerContext, limits: Http2Limits
) -> tuple[Callable[..., asyncio.BaseProtocol], Sequence[str]]:
    """Return what makes the protocol of a connection that may be one of HTTP/2, and what TLS offers."""
    try:
        from tamed.web._http2 import Http2Connection
        from tamed.web._negotiation import ALPN, Negotiation
    except ModuleNotFoundError as error:
        remedy = "install it: pip install 'tamed[web]'"
        raise MissingInput("HTTP/2", f"there is no module {error.name!r}", remedy) from None
    http1, http2 = partial(HttpConnection, context), partial(Http2Connection, context, limits)
    return partial(Negotiation, http1, http2), ALPN


def _serve_websockets(context: ServerContext, limits: WebSocketLimits) -> None:
    try:
        from tamed.web._websocket import WebSocketConnection
    except ModuleNotFoundError as error:
        context.no_websocket = f"there is no module {error.name!r}; install the extra web"
        return

    def begin(
        context: ServerContext, transport: asyncio.Transport, scope: Scope, write_paused: bool
    ) -> WebSocketConnection:
        return WebSocketConnection(context, limits, transport, scope, write_paused=write_paused)

    context.websocket = begin


class _PendingRequests(Service):
    """Ensures that no request is being answered any more when the application is stopped."""

    def __init__(self, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__("requests")
        self._tasks = tasks

    async def stop(self) -> None:
        """Wait for the requests, and cancel those that take too long."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=_GRACE)
        for task in tuple(self._tasks):
            task.cancel()
