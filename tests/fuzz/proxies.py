"""Targets: PROXY headers and SOCKS, which are read before it is known who is there."""

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Any, Final, TypeVar

from tamed.builtin._relay import Stream
from tamed.builtin._socks.messages import (
    encode_datagram,
    parse_datagram,
    parse_greeting,
    parse_login,
    parse_request4,
    parse_request5,
)
from tamed.builtin.socks import AccessDenied, negotiate
from tamed.net.framing import Incomplete, Malformed
from tamed.net.proxy_header import Ends, IpEnds, encode_v1, encode_v2, parse_header
from tests.fuzz.engine import Target

__all__ = ["TARGETS"]

T = TypeVar("T")

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_MOST_TURNS: Final = 600


def _read(parse: Callable[[bytes], T], data: bytes) -> T | None:
    """Feed a parser as `read_message` does: only as many bytes as it asks for; None if it wants more."""
    have = 0
    for _ in range(_MOST_TURNS):
        try:
            return parse(data[:have])
        except Incomplete as incomplete:
            missing = incomplete.missing
        assert missing > 0
        have += missing
        if have > len(data):
            return None
    raise AssertionError("it asks again and again")


def _header(data: bytes) -> object:
    """What a header says can be said again, in both versions."""
    ends: Ends | None = _read(parse_header, data)
    if isinstance(ends, IpEnds):
        for end in ends:
            ipaddress.ip_address(end.host)
            assert 0 <= end.port < 1 << 16
        assert _read(parse_header, encode_v2(ends)) == ends
        if (":" in ends.source.host) == (":" in ends.destination.host):
            assert _read(parse_header, encode_v1(ends)) == ends
    elif ends is not None:
        assert _read(parse_header, encode_v2(ends)) == ends
    return type(ends)


def _of(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def take(data: bytes) -> object:
        message = _read(parse, data)
        target: Any = getattr(message, "target", None)
        if target is not None:
            assert target.host
            assert target.host.isprintable()
            assert not set(target.host) & set(" /\\@")
            assert 0 <= target.port < 1 << 16
        return type(message)

    return take


def _datagram(data: bytes) -> object:
    datagram = parse_datagram(data)
    try:
        ipaddress.ip_address(datagram.target.host)
    except ValueError:
        return "name"
    written = encode_datagram(datagram.target.host, datagram.target.port, datagram.payload)
    again = parse_datagram(written)
    # A zone, which is this machine's own, is not written.
    assert again.target.host == str(ipaddress.ip_address(datagram.target.host.partition("%")[0]))
    assert (again.target.port, again.payload) == (datagram.target.port, datagram.payload)
    return "address"


class _Answers:
    """Stands for a writer."""

    def write(self, data: bytes) -> None:
        assert data

    async def drain(self) -> None:
        return


_LOOP: Final = asyncio.new_event_loop()


def _conversation(data: bytes) -> object:
    """Hold the whole conversation with a client that has sent all this and ends: there is no waiting."""
    reader = asyncio.StreamReader(loop=_LOOP)
    reader.feed_data(data)
    reader.feed_eof()
    talk = negotiate(Stream(reader, _Answers()), None, "127.0.0.1")  # type: ignore[arg-type]
    try:
        talk.send(None)
    except StopIteration as done:
        asked = done.value
        return asked.version, asked.request.command
    raise AssertionError("it waits")


_V4: Final = b"\x01\0\x50\x7f\0\0\x01ann\0"
_V4A: Final = b"\x01\0\x50\0\0\0\x01\0example.org\0"
_V5: Final = b"\x05\x01\0\x03\x0bexample.org\0\x50"
_V5_ADDRESS: Final = b"\x05\x01\0\x01\x7f\0\0\x01\0\x50"
_V5_IPV6: Final = b"\x05\x03\0\x04" + bytes(15) + b"\x01\0\x50"
_WORDS: Final = (
    b"\x05\x01\0",
    b"\x04\x01",
    b"\x03\x0b",
    b"\0",
    b"example.org",
    b"127.0.0.1",
    b"::1",
    b"\x01",
    b"xn--",
)

TARGETS: Final = (
    Target(
        "PROXY header",
        _header,
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\nGET /",
            b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN a b c d\r\n",
            _SIGNATURE + b"\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x9c\x40\0\x50",
            _SIGNATURE + b"\x21\x21\0\x24" + bytes(31) + b"\1\0\1\0\2",
            _SIGNATURE + b"\x21\x31\0\xd8" + b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0"),
            _SIGNATURE + b"\x20\0\0\0",
        ),
        (
            b"PROXY ",
            b"TCP4 ",
            b"TCP6 ",
            b"UNKNOWN",
            b"\r\n",
            _SIGNATURE,
            b"::ffff:1.2.3.4",
            b"0x1",
            b"\x21\x11",
        ),
        (Malformed,),
    ),
    Target(
        "SOCKS greeting",
        _of(parse_greeting),
        (b"\x05\x02\0\x02", b"\x04", b"\x05\0"),
        _WORDS,
        (Malformed,),
        weight=0.3,
    ),
    Target(
        "SOCKS login",
        _of(parse_login),
        (b"\x01\x03ann\x05apple", b"\x01\0\0"),
        _WORDS,
        (Malformed,),
        weight=0.3,
    ),
    Target("SOCKS 4 request", _of(parse_request4), (_V4, _V4A), _WORDS, (Malformed,)),
    Target("SOCKS 5 request", _of(parse_request5), (_V5, _V5_ADDRESS, _V5_IPV6), _WORDS, (Malformed,)),
    Target(
        "SOCKS datagram",
        _datagram,
        (
            b"\0\0\0\x01\x7f\0\0\x01\0\x35question",
            b"\0\0\0\x03\x0bexample.org\0\x35q",
            b"\0\0\x01\x04" + bytes(18),
        ),
        _WORDS,
        (Malformed,),
    ),
    Target(
        "SOCKS conversation",
        _conversation,
        (b"\x05\x01\0" + _V5, b"\x05\x02\0\x02" + _V5_ADDRESS, b"\x04" + _V4, b"\x04" + _V4A),
        _WORDS,
        (Malformed, AccessDenied, EOFError),
    ),
)
