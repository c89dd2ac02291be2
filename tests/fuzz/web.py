"""Targets: HTTP, through the class that serves connections, and what is read out of headers."""

import asyncio
import ipaddress
import itertools
import re
from typing import Any, Final

from starlette.responses import FileResponse, RangeNotSatisfiable

from tamed.builtin._web.files import has_valid_range
from tamed.web._context import ServerContext
from tamed.web._http1 import HttpConnection
from tamed.web._proxies import TrustedProxies
from tamed.web.limits import HttpLimits
from tests.fuzz.engine import Target
from tests.fuzz.sessions import Wire, loop, require_no_failure

__all__ = ["TARGETS"]

_MOST_ANSWERS: Final = 50
_MOST_TURNS: Final = 400
_ANSWER: Final = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9] ")
_UNSAFE: Final = re.compile(rb"[\r\n\0]")


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the length of the body. What an application is told of a request must be in order."""
    assert scope["method"].isascii()
    for name, value in scope["headers"]:
        assert name == name.lower()
        assert not _UNSAFE.search(name + value), (name, value)
    assert sum(name == b"host" for name, _ in scope["headers"]) <= 1
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        if not message["more_body"]:
            break
    body = b"%d" % length
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Http:
    """One connection for each input, which comes in pieces; all of it is answered, or the end."""

    def __init__(self) -> None:
        limits = HttpLimits(request_line=1024, head=4096)
        self._context = ServerContext(_echo, {}, limits, trusted=TrustedProxies(()))

    def __call__(self, data: bytes) -> object:
        return loop().run_until_complete(self._connection(data))

    async def _connection(self, data: bytes) -> object:
        wire = Wire()
        protocol = HttpConnection(self._context)
        protocol.connection_made(wire)
        try:
            third = len(data) // 3
            for piece in (data[:third], data[third:]):
                if piece and not wire.closed:
                    protocol.data_received(piece)
                for _ in range(_MOST_TURNS):
                    if not self._context.tasks:
                        break
                    await asyncio.sleep(0)
            if wire.written:
                assert _ANSWER.match(wire.written), wire.written[:100]
            assert wire.written.count(b"500 Internal") == 0
            return bytes(wire.written[9:12]), wire.closed, len(_ANSWER.findall(wire.written))
        finally:
            protocol.connection_lost(None)
            for task in tuple(self._context.tasks):
                task.cancel()
            await asyncio.sleep(0)
            require_no_failure()


def _forwarded(data: bytes) -> object:
    """A client is an address, whatever the header says."""
    headers = [(b"x-forwarded-for", value) for value in data.split(b"\n")[:8]]
    scope: dict[str, Any] = {
        "type": "http",
        "client": ("127.0.0.1", 5),
        "headers": [*headers, (b"x-forwarded-proto", data[:8])],
        "scheme": "http",
    }
    TrustedProxies(["127.0.0.0/8", "10.0.0.0/8", "::1"]).believe(scope)
    host, port = scope["client"]
    ipaddress.ip_address(host)
    assert 0 <= port < 1 << 16
    assert scope["scheme"] in ("http", "https")
    return host.count("."), scope["scheme"]


_SIZE: Final = 5000
_RESPONSE: Final = FileResponse("file")


def _ranges(data: bytes) -> object:
    """What is heeded of a range are parts of the file, in order and apart; a range of nothing is refused."""
    scope = {"method": "GET", "headers": [(b"range", data)]}
    if not has_valid_range(scope):
        return None
    try:
        ranges = _RESPONSE._parse_range_header(data.decode("latin-1"), _SIZE)
    except RangeNotSatisfiable:
        return "none"
    assert 0 < len(ranges) <= 16
    assert all(0 <= start < end <= _SIZE for start, end in ranges)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(sorted(ranges)))
    return len(ranges)


_GET: Final = b"GET /index.html?a=b HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
_POST: Final = b"POST /form HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\nhello world"
_CHUNKED: Final = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nA: b\r\n\r\n"
)

TARGETS: Final = (
    Target(
        "HTTP",
        _Http(),
        (
            _GET,
            _GET + _GET,
            _POST,
            _CHUNKED + _GET,
            b"HEAD http://localhost/ HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n",
        ),
        (
            b"\r\n",
            b"\n",
            b"\r",
            b"\r\n\r\n",
            b": ",
            b"Host: a\r\n",
            b"Content-Length: 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: identity\r\n",
            b" HTTP/1.1",
            b" HTTP/2.0",
            b"0\r\n\r\n",
            b"ffffffffffffffff\r\n",
            b"Expect: 100-continue\r\n",
            b"Connection: close\r\n",
            b"Connection: keep-alive\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b" folded\r\n",
            b"\t",
            b"+3",
        ),
        weight=5.0,
        grows=False,  # what is longer than its limits is not read on
    ),
    Target(
        "X-Forwarded-For",
        _forwarded,
        (
            b"192.0.2.1, 10.0.0.1",
            b"[2001:db8::1]:80",
            b"::ffff:1.2.3.4",
            b"1.2.3.4:65535",
            b"unknown, _hidden",
            b"https\n10.0.0.1",
        ),
        (b", ", b"10.0.0.1", b"[", b"]:", b"::1", b":80", b"%eth0", b"fe80::1%25"),
    ),
    Target(
        "Range",
        _ranges,
        (b"bytes=0-99", b"bytes=0-0,10-20,-5", b"bytes=4990-", b"bytes=-1", b"bytes=1-2, 4-5 ,6-"),
        (
            b"bytes=",
            b"-",
            b",",
            b"0-",
            b"-0",
            b" ",
            b"4999",
            b"5000",
            b"18446744073709551615",
            b"9223372036854775808",
        ),
    ),
)
