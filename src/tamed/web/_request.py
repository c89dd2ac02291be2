"""The head of a request, and its validation (RFC 9112)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tamed.web._memo import Memo

__all__ = ["Headers", "Refused", "RequestHead", "read_fields", "read_headers"]

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
