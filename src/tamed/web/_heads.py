"""The heads of messages (RFC 9112): validating a request's, and writing a response's."""

import http
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

__all__ = [
    "STATUS_LINES",
    "Headers",
    "Memo",
    "Refused",
    "RequestHead",
    "fields_of",
    "header_lines",
    "joined_lines",
    "plain_response",
    "plain_text",
    "read_fields",
    "read_headers",
    "read_response",
    "require_status",
]

K = TypeVar("K")
V = TypeVar("V")


class Memo(dict[K, V]):
    """A cache of ``make``'s results, cleared after ``most`` entries, because clients may choose keys.

    For short keys, such as header names, it is three times as fast as `lru_cache`.
    """

    def __init__(self, make: Callable[[K], V], most: int) -> None:
        super().__init__()
        self._make = make
        self._most = most

    def __missing__(self, key: K) -> V:
        value = self._make(key)
        if len(self) >= self._most:
            self.clear()
        self[key] = value
        return value


# Requests.

_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-fv:.%]+\])(?::[0-9]*)?")
"""RFC 9110, 7.2, and RFC 3986, 3.2.2."""

_METHOD: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TARGET: Final = re.compile(rb"/[!-~]*")
_CONTROL: Final = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")

_READ: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect", b"upgrade"})

Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """A request is answered with an error status, and its connection is closed."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The parts of a request's headers that the server uses."""

    length: int = 0
    """Bytes of the body, or -1 if it comes in chunks."""
    awaits_continue: bool = False
    upgrade: bytes = b""
    """The protocol of an upgrade request, in lower case."""


_NO_BODY: Final = RequestHead()


_IS_HOST: Final = Memo[bytes, bool](lambda value: _HOST.fullmatch(value) is not None, most=64)
"""Cached: a server has few hosts, and the match would be 2 % of the cost of a request."""


def read_headers(headers: Headers, version: str) -> RequestHead:
    """Return the parts of the headers that the server uses.

    Raises Refused if they do not contain exactly one host (RFC 9112, 3.2), and for another transfer coding
    than chunks.
    """
    hosts = 0
    length = -1 if version == "2" else 0  # HTTP/2 has framing for that
    expects, upgrade = False, b""
    for name, value in headers:
        if name not in _READ:
            continue
        if name == b"host":
            hosts += 1
            if not _IS_HOST[value]:
                raise Refused(400)
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            length = _chunked(value, version, length)
        elif name == b"expect":
            expects = value.lower() == b"100-continue" and version != "1.0"
        else:
            upgrade = value.lower()
    if hosts != 1 and (hosts or version != "1.0"):
        raise Refused(400)
    if length or expects or upgrade:
        return RequestHead(length, expects and length != 0, upgrade)
    return _NO_BODY


def _chunked(coding: bytes, version: str, length: int) -> int:
    """Return the length of a body in chunks. Raises Refused for any other transfer coding (RFC 9112, 6.1)."""
    if version == "1.0":
        raise Refused(400)
    if length or coding.lower() != b"chunked":
        raise Refused(501)
    return -1


def read_fields(fields: Iterable[tuple[bytes, bytes]]) -> tuple[str, bytes, Headers]:
    """Return the method, the target and the headers of a request of HTTP/2 (RFC 9113, 8.3.1).

    In ASGI's form: the authority is the header ``host``, and cookies are one header. Raises Refused for what
    is valid in the frames of HTTP/2 but not in HTTP, such as a method or a target with a space, and for a
    host that differs from the authority.
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
    method, target = pseudo.get(b":method", b"").decode("latin-1"), pseudo.get(b":path", b"")
    _require_http(method, target, headers)
    return method, target, headers


def _require_http(method: str, target: bytes, headers: Headers) -> None:
    """Raise Refused for what would be no request in HTTP/1.1."""
    if not _METHOD.fullmatch(method) or method == "CONNECT":  # this is not a proxy
        raise Refused(400)
    if not _TARGET.fullmatch(target) and (method, target) != ("OPTIONS", b"*"):
        raise Refused(400)
    for name, value in headers:
        if _CONTROL.search(value) or (name == b"content-length" and not value.isdigit()):
            raise Refused(400)


# Responses.

_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_PHRASES: Final = {status.value: status.phrase.encode() for status in http.HTTPStatus}

_DATE, _LENGTH, _CONNECTION, _ENCODING = range(1, 5)
_MEANINGS: Final = {
    b"date": _DATE,
    b"content-length": _LENGTH,
    b"connection": _CONNECTION,
    b"transfer-encoding": _ENCODING,
}


_NUL, _LF, _CR = b"\0\n\r"
"""As numbers: searching bytes in bytes is much slower, 2 % of a request."""


def _field(name: bytes) -> tuple[bytes, int]:
    """Return a header's line up to its value, and a number other than 0 for a header about the connection."""
    lower = bytes(name).lower()
    if not lower or not _TOKEN.issuperset(lower):
        raise RuntimeError(f"the application sent the invalid header name {name!r}")
    return lower + b": ", _MEANINGS.get(lower, 0)


def _status_line(status: int) -> bytes:
    require_status(status)
    return b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b""))


_FIELDS: Final = Memo(_field, most=512)
STATUS_LINES: Final = Memo(_status_line, most=128)
"""The first line of a response with a status. Raises RuntimeError for one that cannot end a request."""


def require_status(status: int) -> None:
    """Raise RuntimeError for a status that cannot end a request."""
    if not 200 <= status <= 999:
        raise RuntimeError(f"the application answered with status {status}, expected 200 to 999")


def read_response(headers: Iterable[tuple[bytes, bytes]]) -> tuple[list[bytes], int | None, bool, bool]:
    """Return the content of an application's headers, in four parts.

    These are the lines to send, the Content-Length, whether to close the connection, and whether there is a
    Date. The server decides about framing and persistence, so ``Transfer-Encoding`` and ``Connection`` of an
    application are ignored. Raises RuntimeError for a header that would change the structure of the answer.
    (An object for these four would be 1 % of the cost of a request.)
    """
    lines: list[bytes] = []
    length: int | None = None
    closes = has_date = False
    for name, value in headers:
        start, meaning = _FIELDS[name]
        if meaning:
            if meaning == _LENGTH:
                if not value.isdigit() or (length is not None and length != int(value)):
                    raise RuntimeError(f"the application sent the invalid Content-Length {value!r}")
                if length is not None:
                    continue
                length = int(value)
            elif meaning == _DATE:
                has_date = True
            else:
                closes = closes or (meaning == _CONNECTION and b"close" in value.lower())
                continue
        lines.append(start + value + b"\r\n")
    return lines, length, closes, has_date


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as lines. Raises RuntimeError for one with a line break."""
    return joined_lines([_FIELDS[name][0] + value + b"\r\n" for name, value in headers])


_OF_HTTP1: Final = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


def fields_of(lines: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Return header lines as fields of HTTP/2, without connection-specific ones (RFC 9113, 8.2.2)."""
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        if name not in _OF_HTTP1:
            fields.append((name, value.strip()))
    return fields


def joined_lines(lines: list[bytes]) -> bytes:
    """Join lines. Raises RuntimeError for a line break or a NUL inside a line (RFC 9110, 5.5)."""
    text = b"".join(lines)
    count = len(lines)
    if text.count(_LF) != count or text.count(_CR) != count or _NUL in text:
        raise RuntimeError("the application sent a header with a line break or a NUL")
    return text


def plain_response(status: int, date: bytes, *, has_body: bool = True) -> bytes:
    """Return a complete response by the server itself, after which it closes the connection."""
    text = plain_text(status)
    return (
        b"%b%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
        % (STATUS_LINES[status], date, len(text), text if has_body else b"")
    )


def plain_text(status: int) -> bytes:
    """Return the body of a response by the server itself."""
    return _PHRASES[status] + b"\n"
