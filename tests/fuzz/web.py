"""Targets: HTTP, through the class that serves connections, and what is read out of headers."""

import asyncio
import ipaddress
import itertools
import re
from contextlib import suppress
from functools import partial
from typing import Any, Final

from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from starlette.responses import FileResponse, RangeNotSatisfiable
from websockets.frames import Frame, Opcode

from tamed.builtin._web_files import has_valid_range
from tamed.web._context import ServerContext, TrustedProxies
from tamed.web._http1 import HttpConnection
from tamed.web._http2 import Http2Connection
from tamed.web._negotiation import PREFACE
from tamed.web._websocket import WebSocketConnection
from tamed.web.asgi import ClientLeft
from tamed.web.limits import Http2Limits, HttpLimits, WebSocketLimits
from tests.fuzz.engine import Target
from tests.fuzz.sessions import Wire, loop, require_no_failure

__all__ = ["TARGETS"]

_MOST_ANSWERS: Final = 50
_MOST_TURNS: Final = 400
_SOME_TURNS: Final = 20
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


async def _end(protocol: asyncio.BaseProtocol, context: ServerContext, turns: int = 0) -> None:
    """Lose the connection, and end the tasks that have not ended after so many turns of the loop."""
    protocol.connection_lost(None)
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in tuple(context.tasks):
        task.cancel()
    await asyncio.sleep(0)
    require_no_failure()


class _Http:
    """One connection for each input, which comes in pieces; all of it is answered, or the end."""

    def __init__(self) -> None:
        self._context = ServerContext(_echo, {}, _LIMITS, trusted=TrustedProxies(()))

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
            await _end(protocol, self._context)


_LIMITS: Final = HttpLimits(request_line=1024, head=4096)


class _Http2:
    """One connection for each input; applications see requests in order, and what is sent is frames."""

    def __init__(self) -> None:
        self._context = ServerContext(_echo, {}, _LIMITS, trusted=TrustedProxies(()))

    def __call__(self, data: bytes) -> object:
        return loop().run_until_complete(self._connection(PREFACE + data))

    async def _connection(self, data: bytes) -> object:
        wire = Wire()
        protocol = Http2Connection(self._context, Http2Limits(streams=10))
        protocol.connection_made(wire)
        try:
            third = len(data) // 3
            for piece in (data[:third], data[third:]):
                if not wire.closed:
                    protocol.data_received(piece)
                for _ in range(_MOST_TURNS):
                    await asyncio.sleep(0)
                    if not self._context.tasks:
                        break
            return _frames(bytes(wire.written)), wire.closed
        finally:
            await _end(protocol, self._context)


def _frames(data: bytes) -> tuple[int, ...]:
    """Return the kinds of the frames, of which the last one is complete."""
    kinds = set()
    while data:
        size = 9 + int.from_bytes(data[:3], "big")
        assert len(data) >= size
        kinds.add(data[3])
        data = data[size:]
    return tuple(sorted(kinds))


class _WebSocket:
    """One WebSocket for each input, behind its handshake, whose application sends back what comes."""

    def __init__(self) -> None:
        begin = partial(WebSocketConnection, WebSocketLimits(message=4096, frame=4096))
        self._context = ServerContext(_send_back, {}, _LIMITS, trusted=TrustedProxies(()), websocket=begin)

    def __call__(self, data: bytes) -> object:
        return loop().run_until_complete(self._connection(data))

    async def _connection(self, data: bytes) -> object:
        wire = Wire()
        first = HttpConnection(self._context)
        first.connection_made(wire)
        first.data_received(_HANDSHAKE)
        protocol: Any = wire.get_protocol()
        await asyncio.sleep(0)
        assert wire.written.startswith(b"HTTP/1.1 101 ")
        head = len(wire.written)
        try:
            half = len(data) // 2
            for piece in (data[:half], data[half:]):
                if piece and not wire.closed:
                    protocol.data_received(piece)
                for _ in range(_SOME_TURNS):
                    await asyncio.sleep(0)
            assert len(wire.written) - head <= 4 * len(data) + 4096
            return wire.closed, bytes(wire.written[head : head + 1])
        finally:
            await _end(protocol, self._context, turns=_SOME_TURNS)


async def _send_back(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        data = message.get("bytes")
        assert len(message["text"].encode() if data is None else data) <= 4096
        with suppress(ClientLeft):
            await send(message | {"type": "websocket.send"})
    assert message["type"] == "websocket.disconnect"


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
_HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


def _masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def _request(number: int, *flags: str, method: str = "GET") -> bytes:
    """Return a request whose headers are in no table, so that frames can be put together in any order."""
    fields = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", "/a?b=c")]
    block = Encoder().encode([NeverIndexedHeaderTuple(*each) for each in fields])
    return HeadersFrame(number, block, flags=flags).serialize()


_SETTINGS: Final = SettingsFrame(0, {1: 0, 3: 10, 4: 100}).serialize()
_PING: Final = PingFrame(0, b"12345678").serialize()
_POST2: Final = (
    _request(1, "END_HEADERS", method="POST")
    + DataFrame(1, b"hello").serialize()
    + DataFrame(1, b" world", flags=["END_STREAM"]).serialize()
)

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
        "HTTP/2",
        _Http2(),
        (
            _SETTINGS + _request(1, "END_HEADERS", "END_STREAM"),
            _SETTINGS + _POST2 + _request(3, "END_HEADERS", "END_STREAM"),
            _SETTINGS + _request(1) + ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize(),
            _SETTINGS + _request(1, "END_HEADERS") + RstStreamFrame(1, 8).serialize() + _PING,
            _SETTINGS + _request(5, "END_HEADERS") + GoAwayFrame(0, 0).serialize() + _PING,
        ),
        (
            _SETTINGS,
            _PING,
            _request(3, "END_HEADERS", "END_STREAM"),
            _request(5, "END_HEADERS", method="POST"),
            DataFrame(3, b"x" * 20, flags=["END_STREAM"]).serialize(),
            RstStreamFrame(3, 8).serialize(),
            WindowUpdateFrame(0, 1000).serialize(),
            WindowUpdateFrame(1, 2**31 - 1).serialize(),
            PriorityFrame(7, 1, 5).serialize(),
            GoAwayFrame(0, 1).serialize(),
            b"\x00\x00\x05",
            b"\x82",
            b"\xbe",
            b"\x3f\xe1\x1f",
        ),
        weight=2.0,
        grows=False,
    ),
    Target(
        "WebSocket",
        _WebSocket(),
        (
            _masked(Opcode.TEXT, b"verse"),
            _masked(Opcode.BINARY, b"x" * 200, fin=False) + _masked(Opcode.CONT, b"y"),
            _masked(Opcode.PING, b"1") + _masked(Opcode.CLOSE, b"\x03\xe8"),
            b"\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\x00",  # compressed (RFC 7692, 7.2.3.1)
        ),
        (
            _masked(Opcode.TEXT, b"\xff"),
            _masked(Opcode.CONT, b"z"),
            _masked(Opcode.PONG, b""),
            b"\x81\xfe\x10\x01",
            b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\xc1",
            b"\x01\x80",
            b"\x88\x81",
        ),
        weight=2.0,
        grows=False,
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
