"""The head of a response, from what an application sends to bytes (RFC 9112, 4 to 6)."""

import http
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

__all__ = [
    "ResponseHead",
    "chunk",
    "fields_of",
    "header_lines",
    "plain_response",
    "plain_text",
    "require_status",
    "status_line",
]

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
"""Numbers: to look for bytes in bytes takes much longer, 2 % of a request."""


class _Field(NamedTuple):
    start: bytes
    """The line up to the value."""
    meaning: int
    """Not 0 for a header that says how the connection goes on."""


@lru_cache(maxsize=512)
def _field(name: bytes) -> _Field:
    lower = bytes(name).lower()
    if not lower or not _TOKEN.issuperset(lower):
        raise RuntimeError(f"the application sends {name!r}, which cannot be the name of a header")
    return _Field(lower + b": ", _MEANINGS.get(lower, 0))


@lru_cache(maxsize=128)
def status_line(status: int) -> bytes:
    """Return the first line of a response. Raises RuntimeError for a status that cannot end a request."""
    require_status(status)
    return b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b""))


def require_status(status: int) -> None:
    """Raise RuntimeError for a status that cannot end a request."""
    if not 200 <= status <= 999:
        raise RuntimeError(f"the application answers with status {status}, and not with 200 to 999")


class ResponseHead:
    """The headers of a response, in order, as the ``lines`` that are sent, and as one ``text``.

    ``length`` is the Content-Length that the application has given. ``closes`` says that it wants the
    connection closed, and ``has_date`` that it has given the time itself. How the body is framed, and whether
    the connection goes on, is the server's to say: an application's ``Transfer-Encoding`` and ``Connection``
    are left out. Raises RuntimeError for a header that would be another line or another answer.
    """

    __slots__ = ("closes", "has_date", "length", "lines", "text")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.length: int | None = None
        self.closes = False
        self.has_date = False
        lines: list[bytes] = []
        self.lines = lines
        for name, value in headers:
            start, meaning = _field(name)
            if meaning == _LENGTH and self.length is None and value.isdigit():
                self.length = int(value)
            elif meaning and not self._keeps(meaning, value):
                continue
            lines.append(start + value + b"\r\n")
        self.text = joined_lines(lines)

    def _keeps(self, meaning: int, value: bytes) -> bool:
        """Take note of a header that the server must know of; return whether it is sent as it is."""
        if meaning == _DATE:
            self.has_date = True
        elif meaning == _LENGTH:
            if not value.isdigit() or int(value) != self.length:
                raise RuntimeError(f"the application sends the Content-Length {value!r}")
            return False
        elif meaning == _CONNECTION:
            self.closes = self.closes or b"close" in value.lower()
            return False
        return meaning != _ENCODING


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return headers as lines. Raises RuntimeError for one that would be more than one line."""
    return joined_lines([_field(name).start + value + b"\r\n" for name, value in headers])


_OF_HTTP1: Final = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


def fields_of(lines: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Return lines of headers as the fields of HTTP/2, without those that it has not (RFC 9113, 8.2.2)."""
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        if name not in _OF_HTTP1:
            fields.append((name, value.strip()))
    return fields


def joined_lines(lines: list[bytes]) -> bytes:
    """Join lines. Raises RuntimeError if any has more than its end in it (RFC 9110, 5.5)."""
    text = b"".join(lines)
    count = len(lines)
    if text.count(_LF) != count or text.count(_CR) != count or _NUL in text:
        raise RuntimeError("the application sends a header with a line break or a NUL in it")
    return text


def chunk(data: bytes) -> bytes:
    """Return a part of a body as a chunk; one of nothing would end the body, so there is none."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def plain_response(status: int, date: bytes, reason: str = "") -> bytes:
    """Return a whole response of the server itself, after which it closes the connection."""
    text = plain_text(status, reason)
    return (
        b"%b%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
        % (status_line(status), date, len(text), text)
    )


def plain_text(status: int, reason: str = "") -> bytes:
    """Return the body of a response of the server itself."""
    return f"{reason or _PHRASES[status].decode()}\n".encode()
