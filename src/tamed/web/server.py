"""The web server as a service: an ASGI application, its lifespan, and its connections."""

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
from tamed.web._context import ServerContext, TrustedProxies
from tamed.web._http1 import HttpConnection
from tamed.web._lifespan import Lifespan
from tamed.web._negotiation import ALPN, Negotiation, ProxiedConnection
from tamed.web.asgi import ASGIApplication
from tamed.web.limits import Http2Limits, HttpLimits, WebSocketLimits

__all__ = ["AccessFormat", "WebServer"]

_GRACE: Final = 5.0
"""Seconds for an application's work after the answer, or after its client has disconnected."""


class WebServer(MultiService):
    """Serves an ASGI application over HTTP and WebSocket; a program may have other services besides it.

    It has three services: ``lifespan`` starts and stops the application; ``requests`` waits at a stop, for
    five seconds at most, for work that the application still does after its answers; and ``server`` has the
    connections. Its arguments, besides ``app`` and ``endpoints``:

    - ``state``: the content of ``scope["state"]``, to which the application may add in its lifespan;
    - ``lifespan``: whether the application supports ASGI's lifespan protocol;
    - ``limits``: limits and timeouts of HTTP connections;
    - ``http2``: the limits of HTTP/2 connections. Without it only HTTP/1.1 is served; with it the client
      chooses, in clear text by prior knowledge (RFC 9113, 3.3). Raises MissingInput without the package
      ``h2``;
    - ``websocket``: the limits of WebSockets, or the reason why none is served, for the log: a request for
      one is then answered with 404, as it is without the package ``websockets``;
    - ``trusted``: addresses and networks of proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are
      trusted; ``unix`` means every peer on a unix socket. Raises ValueError for anything else;
    - ``proxy_from``: addresses and networks whose connections begin with a PROXY header with the client's
      address; ``unix`` means every peer on a unix socket. Not for ``tls://``, because the header precedes
      TLS;
    - ``access_log``: the format of the lines of ``web.access``, None for none;
    - ``root_path``: the path prefix that a proxy removes before it forwards a request;
    - the options of `tamed.net.server.Server`; by default 1000 connections, and 200 from one address.
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
        """Its addresses, after it is prepared."""
        return self._server.addresses


def _negotiation(
    context: ServerContext, limits: Http2Limits
) -> tuple[Callable[..., asyncio.BaseProtocol], Sequence[str]]:
    """Return the protocol factory for connections that may use HTTP/2, and the protocols for ALPN."""
    try:
        from tamed.web._http2 import Http2Connection
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
    context.websocket = partial(WebSocketConnection, limits)


class _PendingRequests(Service):
    """Ensures that no request is in progress when the application is stopped."""

    def __init__(self, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__("requests")
        self._tasks = tasks

    async def stop(self) -> None:
        """Wait for the requests, and cancel slow ones."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=_GRACE)
        for task in tuple(self._tasks):
            task.cancel()
