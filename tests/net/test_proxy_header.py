from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.net.framing import Incomplete, Malformed
from tamed.net.proxy_header import (
    Ends,
    IpEnd,
    IpEnds,
    UnixEnds,
    encode_v1,
    encode_v2,
    ends_of,
    parse_header,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ports = st.integers(0, 65535)


def ip_ends(version: int) -> st.SearchStrategy[IpEnds]:
    """Make both ends of a TCP connection."""
    ends = st.builds(IpEnd, st.ip_addresses(v=version).map(str), ports)  # type: ignore[arg-type]
    return st.builds(IpEnds, ends, ends)


tcp = ip_ends(4) | ip_ends(6)
paths = st.binary(max_size=108).filter(lambda path: not path.endswith(b"\0"))
unix = st.builds(UnixEnds, paths, paths)


def parts(message: bytes) -> Ends | None:
    """Parse every beginning of a header, which must be incomplete, and never ask for too much."""
    for end in range(len(message)):
        with pytest.raises(Incomplete) as caught:
            parse_header(message[:end])
        assert 1 <= caught.value.missing <= len(message) - end
    return parse_header(message)


@given(tcp)
def test_version_1(ends: IpEnds) -> None:
    """A line says what it was made of, and is not longer than it may be."""
    line = encode_v1(ends)
    assert len(line) <= 107
    assert parts(line) == ends


@given(tcp | unix, st.binary(max_size=200))
def test_version_2(ends: Ends, more: bytes) -> None:
    """A header says what it was made of; what else is in it is passed over."""
    header = encode_v2(ends)
    assert parts(header) == ends
    longer = header[:14] + (len(header) - 16 + len(more)).to_bytes(2) + header[16:] + more
    assert parts(longer) == ends


@pytest.mark.parametrize(
    "header",
    [
        encode_v1(None),
        encode_v2(None),
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x00\x00\x00",
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),
    ],
)
def test_headers_that_say_nothing(header: bytes) -> None:
    """A proxy's own connection, and families that we do not know."""
    assert parts(header) is None


def test_examples_of_the_specification() -> None:
    """As it has them, byte for byte."""
    line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    ends = IpEnds(IpEnd("192.168.0.1", 56324), IpEnd("192.168.0.11", 443))
    assert parts(line) == ends
    assert encode_v1(ends) == line
    assert encode_v2(ends) == (
        SIGNATURE + b"\x21\x11\x00\x0c" + b"\xc0\xa8\x00\x01\xc0\xa8\x00\x0b" + b"\xdc\x04\x01\xbb"
    )


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "does not begin with a PROXY header"),
        (b"\r\n\r\n\0\r\nQUIT\r    ", "does not begin with a PROXY header"),
        (b"PROXY " + b"x" * 101, "has more than 107 bytes"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "is invalid"),
        (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", "is invalid"),
        (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "is invalid"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", "is invalid"),
        (b"PROXY TCP4 ::1 ::2 1 2\r\n", "invalid addresses"),
        (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "invalid addresses"),
        (b"PROXY TCP4 1.2.3.400 5.6.7.8 1 2\r\n", "invalid addresses"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", "invalid ports"),
        (SIGNATURE + b"\x31\x11\x00\x00", "unknown version and command 0x31"),
        (SIGNATURE + b"\x22\x11\x00\x00", "unknown version and command 0x22"),
        (SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11), "too short for its addresses"),
        (SIGNATURE + b"\x21\x31\x00\x0c" + bytes(12), "too short for its addresses"),
    ],
)
def test_malformed(header: bytes, why: str) -> None:
    """With the reason, for the log."""
    with pytest.raises(Malformed, match=why):
        parse_header(header)


@given(st.sampled_from([b"", b"PROXY ", SIGNATURE + b"\x21"]), st.binary(max_size=300))
def test_no_bytes_break_the_parser(start: bytes, data: bytes) -> None:
    """They are a header, the beginning of one, or malformed."""
    with suppress(Incomplete, Malformed):
        parse_header(start + data)


@pytest.mark.parametrize(
    ("source", "destination", "ends"),
    [
        (("1.2.3.4", 5), ("6.7.8.9", 10), IpEnds(IpEnd("1.2.3.4", 5), IpEnd("6.7.8.9", 10))),
        (("fe80::1%lo", 5, 0, 1), ("::2", 6, 0, 0), IpEnds(IpEnd("fe80::1", 5), IpEnd("::2", 6))),
        ("", "/run/x.sock", UnixEnds(b"", b"/run/x.sock")),
        (b"\0name", "/" + "x" * 200, UnixEnds(b"\0name", b"/" + b"x" * 107)),
        (None, None, None),
    ],
)
def test_ends_of_sockets(source: object, destination: object, ends: Ends | None) -> None:
    """As the system writes them."""
    assert ends_of(source, destination) == ends
