"""A request's head, from what the parser found to ASGI's scope, with what makes it no request (RFC 9112)."""

import asyncio
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import httptools

from tamed.net.proxy_header import IpEnds
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
"""ASGI's. From 2.4 on Starlette, and what is built on it, does not listen for `http.disconnect` while it
streams: a stream that waits would hear of a drain, or that its client has left, only by its next `send`."""

_OF_EACH_REQUEST: Final = dict.fromkeys(
    ("http_version", "method", "path", "raw_path", "query_string", "headers", "state")
)
"""What is set for each request. A copy of a dictionary that has all keys need not grow."""

_EXTENSIONS: Final[dict[str, dict[str, Any]]] = {
    "http.response.early_hint": {},
    "http.response.pathsend": {},
    "http.response.trailers": {},
}

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
    is_trusted: bool
    """Whether it is a proxy that is believed."""
    scope: dict[str, Any]
    """What the scopes of its requests have in common. A copy takes half the time of a new one."""

    def __str__(self) -> str:
        return "{}:{}".format(*self.client) if self.client else "unix"


def peer_of(transport: asyncio.BaseTransport, context: ServerContext, ends: IpEnds | None = None) -> Peer:
    """Return the ends of a connection: those of the transport, or those that a PROXY header named."""
    info = transport.get_extra_info
    client, server = ends or (info("peername"), info("sockname"))
    client = (str(client[0]), int(client[1])) if isinstance(client, tuple) else None
    if isinstance(server, tuple):
        server = (str(server[0]), int(server[1]))
    else:
        server = (server, None) if isinstance(server, str) else None
    extensions = _EXTENSIONS.copy()
    tls = _tls_extension(transport)
    if tls is not None:
        extensions["tls"] = tls
    scope = {
        "type": "http",
        "asgi": _VERSIONS,
        "server": server,
        "client": client,
        "scheme": "http" if info("sslcontext") is None else "https",
        "root_path": context.root_path,
        "extensions": extensions,
        **_OF_EACH_REQUEST,
    }
    return Peer(client, context.trusted.trusts_peer(client), scope)


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
            if not _is_host(value):
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


@lru_cache(maxsize=64)  # a server has few, and the expression would be 2 % of the cost of a request
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


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
    if target[:1] == b"/" and target.find(b"#") < 0:  # `in` takes six times as long
        raw_path, _, query = target.partition(b"?")
    else:
        raw_path, query = _parts(method, target)
    text = raw_path.decode("ascii")
    path = unquote(text) if "%" in text else text
    if context.root_path:
        path = context.root_path + path
        raw_path = context.raw_root_path + raw_path
    scope: dict[str, Any] = peer.scope.copy()
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
    of_tls = {name: value for name, value in scope["extensions"].items() if name not in _EXTENSIONS}
    made = {
        **scope,
        "type": "websocket",
        "scheme": _WEBSOCKET_SCHEMES[scope["scheme"]],
        "subprotocols": [each.strip() for each in ",".join(offered).split(",") if each.strip()],
        "extensions": {**of_tls, "websocket.http.response": {}},
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
