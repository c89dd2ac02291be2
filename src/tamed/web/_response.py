"""The head of a response: from an application's headers to bytes (RFC 9112, 4 to 6)."""

import http
from collections.abc import Iterable
from typing import Final

from tamed.web._memo import Memo

__all__ = [
    "STATUS_LINES",
    "chunk",
    "fields_of",
    "header_lines",
    "joined_lines",
    "plain_response",
    "plain_text",
    "read_response",
    "require_status",
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


def chunk(data: bytes) -> bytes:
    """Return a part of a body as a chunk; nothing for an empty part, because an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


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
