"""What requests have in common, in a server and in a connection, and the scope of each one (ASGI)."""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote, unquote

import httptools

from tamed.net.listen import current_environment
from tamed.net.proxy_header import IpEnds
from tamed.net.tls import tls_session
from tamed.web._access import AccessFormat, access_writer, client_text
from tamed.web._heads import Headers, Refused
from tamed.web.asgi import ASGIApplication, Scope
from tamed.web.limits import HttpLimits

__all__ = [
    "Peer",
    "ServerContext",
    "TrustedProxies",
    "WebSocketFactory",
    "WebSocketSession",
    "make_scope",
    "peer_of",
    "websocket_scope",
]

_VERSIONS: Final = {"version": "3.0", "spec_version": "2.3"}
"""The versions of ASGI. From 2.4 on, Starlette and frameworks built on it ignore `http.disconnect` while they
stream: a waiting stream would notice a drain, or a disconnect, only in its next `send`."""

_OF_EACH_REQUEST: Final = dict.fromkeys(
    ("http_version", "method", "path", "raw_path", "query_string", "headers", "state", "extensions")
)
"""The keys that are set for each request: a copied dict that already has all keys need not grow."""

_EXTENSIONS: Final[dict[str, dict[str, Any]]] = {
    "http.response.early_hint": {},
    "http.response.pathsend": {},
    "http.response.trailers": {},
}

_WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""Some proxies send the schemes of WebSockets."""

_UNIX: Final = "unix"
_MOST_PROXIES: Final = 100
"""Maximum number of elements of X-Forwarded-For to read, starting with the nearest proxy."""


class WebSocketSession(Protocol):
    """A WebSocket that replaces the protocol of a connection."""

    def begin(self, rest: bytes) -> None: ...
    def connection_draining(self) -> None: ...


WebSocketFactory = Callable[["ServerContext", asyncio.Transport, Scope, bool], WebSocketSession]
"""Creates a WebSocket from a transport and a scope; the last argument is whether writing is paused."""


class _Client(NamedTuple):
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are trusted.

    ``trusted`` are addresses and networks; ``unix`` means every peer on a unix socket. Raises ValueError for
    anything else. Each proxy appends its client's address, so the client is the last one that is not a
    trusted proxy. If an element after it is not an address, the header is ignored, and the client is the
    proxy.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        names = list(trusted)
        self._unix = _UNIX in names
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = [
            ipaddress.ip_network(each) for each in names if each != _UNIX
        ]

    def trusts_peer(self, peer: tuple[str, int] | None) -> bool:
        """Return whether the peer of a connection is a trusted proxy; a unix socket's peer is None."""
        if peer is None:
            return self._unix
        client = _parsed(peer[0]) if self._networks else None
        return client is not None and self._trusts(client)

    def believe(self, scope: Scope) -> None:
        """Set the client and the scheme of a request from the headers of its proxies."""
        headers = scope["headers"]
        schemes = [value for name, value in headers if name == b"x-forwarded-proto"]
        if schemes and (scheme := schemes[-1].decode("latin-1").strip().lower()) in _SCHEMES:
            scope["scheme"] = _SCHEMES[scheme]
        clients = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        client = self._client(clients.decode("latin-1").split(",")[-_MOST_PROXIES:])
        if client is not None:
            scope["client"] = (str(client.address), client.port)

    def _client(self, elements: list[str]) -> _Client | None:
        client = None
        for element in reversed(elements):
            client = _parsed(element.strip())
            if client is None or not self._trusts(client):
                break
        return client

    def _trusts(self, client: _Client) -> bool:
        return any(client.address in network for network in self._networks)


def _parsed(text: str) -> _Client | None:
    """Read ``ADDRESS``, ``IPV4:PORT`` or ``[IPV6]:PORT``; a mapped IPv4 address is unmapped."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and int(port[:6]) < 1 << 16):
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return _Client(mapped or address, int(port or 0))


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
        websocket: WebSocketFactory | None = None,
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


@dataclass(frozen=True, slots=True)
class Peer:
    """The two ends of a connection, in the form of scopes."""

    client: tuple[str, int] | None
    """None on a unix socket."""
    is_trusted: bool
    """Whether it is a trusted proxy."""
    scope: dict[str, Any]
    """The common part of its requests' scopes. Copying takes half the time of creating one."""
    extensions: dict[str, Any]
    """The common part of their extensions."""

    def __str__(self) -> str:
        return client_text(self.client)


def peer_of(transport: asyncio.BaseTransport, context: ServerContext, ends: IpEnds | None = None) -> Peer:
    """Return the ends of a connection: those of the transport, or those in a PROXY header."""
    info = transport.get_extra_info
    client, server = ends or (info("peername"), info("sockname"))
    client = (str(client[0]), int(client[1])) if isinstance(client, tuple) else None
    if isinstance(server, tuple):
        server = (str(server[0]), int(server[1]))
    else:
        server = (server, None) if isinstance(server, str) else None
    extensions: dict[str, Any] = _EXTENSIONS.copy()
    if (tls := _tls_extension(transport)) is not None:
        extensions["tls"] = tls
    scope = {
        "type": "http",
        "asgi": _VERSIONS,
        "server": server,
        "client": client,
        "scheme": "http" if info("sslcontext") is None else "https",
        "root_path": context.root_path,
        **_OF_EACH_REQUEST,
    }
    return Peer(client, context.trusted.trusts_peer(client), scope, extensions)


def _tls_extension(transport: asyncio.BaseTransport) -> dict[str, Any] | None:
    """Return the TLS information for applications (ASGI's TLS extension, 0.2)."""
    session = tls_session(transport)
    if session is None:
        return None
    return {
        "server_cert": session.server_certificate or None,
        "client_cert_chain": session.client_certificates,
        "client_cert_name": session.client_name or None,
        "client_cert_error": None,  # then the handshake has failed
        "tls_version": session.version or None,
        "cipher_suite": session.cipher_suite or None,
    }


def make_scope(  # noqa: PLR0917 - called once a request, where keywords cost
    context: ServerContext, peer: Peer, method: str, target: bytes, version: str, headers: Headers
) -> Scope:
    """Return the scope of an HTTP request (ASGI).

    Raises Refused for an invalid target (RFC 9112, 3.2).
    """
    try:
        path = target.decode("ascii")
    except UnicodeDecodeError:
        raise Refused(400) from None
    raw_path, query = target, b""
    if path[:1] != "/" or "?" in path or "#" in path:  # searching them in bytes takes six times as long
        raw_path, query, authority = _parts(method, target)
        path = raw_path.decode("ascii")
        if authority:  # it replaces the header (RFC 9112, 3.2.2)
            headers = [(b"host", authority), *(field for field in headers if field[0] != b"host")]
    if "%" in path:
        path = unquote(path)
    if context.root_path:
        path = context.root_path + path
        raw_path = context.raw_root_path + raw_path
    scope = peer.scope.copy()
    scope["extensions"] = peer.extensions.copy()
    scope["http_version"] = version
    scope["method"] = method
    scope["path"] = path
    scope["raw_path"] = raw_path
    scope["query_string"] = query
    scope["headers"] = headers
    scope["state"] = context.state.copy()
    if peer.is_trusted:
        context.trusted.believe(scope)
    return scope


def websocket_scope(scope: Scope) -> Scope:
    """Return the scope of a WebSocket, from that of its request (ASGI)."""
    offered = (
        value.decode("latin-1") for name, value in scope["headers"] if name == b"sec-websocket-protocol"
    )
    of_tls = {name: value for name, value in scope["extensions"].items() if name == "tls"}
    made = {
        **scope,
        "type": "websocket",
        "scheme": _WEBSOCKET_SCHEMES[scope["scheme"]],
        "subprotocols": [each.strip() for each in ",".join(offered).split(",") if each.strip()],
        "extensions": {**of_tls, "websocket.http.response": {}},
    }
    del made["method"]
    return made


def _parts(method: str, target: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the path and the query of a target, and the authority of an absolute one (RFC 9112, 3.2)."""
    if target[:1] == b"/" and target.find(b"#") < 0:
        path, _, query = target.partition(b"?")
        return path, query, b""
    if method == "OPTIONS" and target == b"*":  # for the server as a whole (RFC 9110, 9.3.7)
        return target, b"", b""
    if method == "CONNECT":  # this is not a proxy
        raise Refused(400)
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise Refused(400) from None
    authority = b""
    if target[:1] != b"/":
        if not url.schema or url.schema.lower() not in {b"http", b"https"}:
            raise Refused(400)
        host = b"[%b]" % url.host if b":" in url.host else url.host
        authority = b"%b:%d" % (host, url.port) if url.port else host
    return url.path or b"/", url.query or b"", authority
