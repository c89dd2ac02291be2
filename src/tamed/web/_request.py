"""A request's head, from what the parser found to ASGI's scope, with what makes it no request (RFC 9112)."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import httptools

from tamed.net.tls_session import tls_session
from tamed.web._context import ServerContext
from tamed.web.asgi import Scope

__all__ = [
    "Peer",
    "Refused",
    "RequestHead",
    "make_scope",
    "peer_of",
    "read_fields",
    "read_headers",
    "websocket_scope",
]

_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-fv:.%]+\])(?::[0-9]*)?")
"""RFC 9110, 7.2, and RFC 3986, 3.2.2."""

_VERSIONS: Final = {"version": "3.0", "spec_version": "2.3"}
"""ASGI's. From 2.4 on an application hears only by an error of `send` that its client has left."""

_WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}
_READ: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"})

Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """A request is answered with an error, and its connection closed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Peer(NamedTuple):
    """The two ends of a connection, as scopes have them."""

    client: tuple[str, int] | None
    """None on a unix socket."""
    server: tuple[str, int | None] | None
    scheme: str
    is_trusted: bool
    """Whether it is a proxy that is believed."""
    tls: dict[str, Any] | None = None
    """ASGI's extension ``tls``."""

    def __str__(self) -> str:
        return "{}:{}".format(*self.client) if self.client else "unix"


def peer_of(transport: asyncio.BaseTransport, context: ServerContext) -> Peer:
    """Return the ends of a connection."""
    info = transport.get_extra_info
    client, server = info("peername"), info("sockname")
    client = (str(client[0]), int(client[1])) if isinstance(client, tuple) else None
    if isinstance(server, tuple):
        server = (str(server[0]), int(server[1]))
    else:
        server = (server, None) if isinstance(server, str) else None
    scheme = "http" if info("sslcontext") is None else "https"
    return Peer(client, server, scheme, context.trusted.trusts_peer(client), _tls_extension(transport))


def _tls_extension(transport: asyncio.BaseTransport) -> dict[str, Any] | None:
    """Return what applications hear of a connection's TLS (ASGI's TLS extension, 0.2)."""
    session = tls_session(transport)
    if session is None:
        return None
    return {
        "server_cert": session.server_certificate or None,
        "client_cert_chain": session.client_certificates,
        "client_cert_name": session.client_name or None,
        "client_cert_error": None,  # the handshake has failed then
        "tls_version": session.version or None,
        "cipher_suite": session.cipher_suite or None,
    }


class RequestHead(NamedTuple):
    """What the server itself must know of a request's headers."""

    length: int = 0
    """Bytes of the body, or -1 if it comes in chunks."""
    awaits_continue: bool = False
    upgrade: bytes = b""
    """The protocol that the client would like to go on with, in lower case."""


_NO_BODY: Final = RequestHead()


def read_headers(headers: Headers, version: str) -> RequestHead:
    """Return what the headers say of the request.

    Raises Refused if they do not name one host (RFC 9112, 3.2).
    """
    hosts = 0
    length = -1 if version == "2" else 0  # its frames tell
    expects, upgrade = False, b""
    for name, value in headers:
        if name not in _READ:
            continue
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                raise Refused(400)
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            length = -1
        elif name == b"expect":
            expects = value.lower() == b"100-continue" and version != "1.0"
        else:
            upgrade = value.lower()
    if hosts != 1 and (hosts or version != "1.0"):
        raise Refused(400)
    if length or expects or upgrade:
        return RequestHead(length, expects and length != 0, upgrade)
    return _NO_BODY


def read_fields(fields: Iterable[tuple[bytes, bytes]]) -> tuple[str, bytes, Headers]:
    """Return the method, the target and the headers of a request of HTTP/2 (RFC 9113, 8.3.1).

    As ASGI has them: the authority is the header ``host``, and cookies are one header. Raises Refused for a
    target that is no path, and a host that is not the authority.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    cookies: list[bytes] = []
    for name, value in fields:
        if name[:1] == b":":
            pseudo[bytes(name)] = bytes(value)
        elif name == b"cookie":
            cookies.append(bytes(value))
        else:
            headers.append((bytes(name), bytes(value)))
    authority = pseudo.get(b":authority")
    if authority is not None:
        if any(name == b"host" and value != authority for name, value in headers):
            raise Refused(400)
        headers = [(b"host", authority), *(field for field in headers if field[0] != b"host")]
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not method.isascii() or not (target[:1] == b"/" or (method, target) == (b"OPTIONS", b"*")):
        raise Refused(400)
    if any(name == b"content-length" and not value.isdigit() for name, value in headers):
        raise Refused(400)
    return method.decode("ascii"), target, headers


def make_scope(  # noqa: PLR0917 - called once a request, where keywords cost
    context: ServerContext, peer: Peer, method: str, target: bytes, version: str, headers: Headers
) -> Scope:
    """Return the scope of an HTTP request (ASGI).

    Raises Refused for a target that is none (RFC 9112, 3.2).
    """
    if not target.isascii():
        raise Refused(400)
    if target[:1] == b"/" and b"#" not in target:
        raw_path, _, query = target.partition(b"?")
    else:
        raw_path, query = _parts(method, target)
    text = raw_path.decode("ascii")
    path = unquote(text) if "%" in text else text
    if context.root_path:
        path = context.root_path + path
        raw_path = context.raw_root_path + raw_path
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": version,
        "server": peer.server,
        "client": peer.client,
        "scheme": peer.scheme,
        "method": method,
        "root_path": context.root_path,
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": headers,
        "state": context.state.copy(),
    }
    if peer.tls is not None:
        scope["extensions"] = {"tls": peer.tls}
    if peer.is_trusted:
        context.trusted.believe(scope)
    return scope


def websocket_scope(scope: Scope) -> Scope:
    """Return the scope of a WebSocket, from that of its request (ASGI)."""
    offered = (
        value.decode("latin-1") for name, value in scope["headers"] if name == b"sec-websocket-protocol"
    )
    made = {
        **scope,
        "type": "websocket",
        "scheme": _WEBSOCKET_SCHEMES[scope["scheme"]],
        "subprotocols": [each.strip() for each in ",".join(offered).split(",") if each.strip()],
        "extensions": {**scope.get("extensions", {}), "websocket.http.response": {}},
    }
    del made["method"]
    return made


def _parts(method: str, target: bytes) -> tuple[bytes, bytes]:
    if method == "OPTIONS" and target == b"*":  # of the server as a whole (RFC 9110, 9.3.7)
        return target, b""
    if method == "CONNECT":  # no proxy
        raise Refused(400)
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise Refused(400) from None
    return url.path or b"/", url.query or b""
