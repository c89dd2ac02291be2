import ipaddress
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.builtin._socks.messages import (
    Code,
    Datagram,
    Greeting,
    Login,
    Request,
    Target,
    encode_datagram,
    encode_reply4,
    encode_reply5,
    parse_datagram,
    parse_greeting,
    parse_login,
    parse_request4,
    parse_request5,
)
from tamed.net.framing import Incomplete, Malformed

PARSERS: list[Callable[[bytes], object]] = [parse_greeting, parse_login, parse_request4, parse_request5]

labels = st.from_regex(r"\A[a-z][a-z0-9-]{0,10}[a-z]\Z")
names = st.lists(labels, min_size=1, max_size=5).map(".".join)
hosts = st.ip_addresses().map(str) | names
ports = st.integers(0, 65535)
users = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


def address5(host: str, port: int) -> bytes:
    """Write an address as a client of SOCKS 5 does."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return bytes([3, len(host)]) + host.encode() + port.to_bytes(2)
    return bytes([1 if ip.version == 4 else 4]) + ip.packed + port.to_bytes(2)


def parts(parse: Callable[[bytes], object], message: bytes) -> object:
    """Parse every beginning of a message, which must be incomplete, and never ask for too much."""
    for end in range(len(message)):
        with pytest.raises(Incomplete) as caught:
            parse(message[:end])
        assert 1 <= caught.value.missing <= len(message) - end
    return parse(message)


@given(st.binary(max_size=255))
def test_greeting(methods: bytes) -> None:
    """Version 5 and whatever is offered; version 4 has nothing more to say yet."""
    assert parts(parse_greeting, bytes([5, len(methods)]) + methods) == Greeting(5, frozenset(methods))
    assert parse_greeting(b"\x04") == Greeting(4)


@given(users.filter(lambda user: len(user.encode()) < 256), st.binary(max_size=255))
def test_login(user: str, password: bytes) -> None:
    """A user and a password of any bytes."""
    message = bytes([1, len(user.encode())]) + user.encode() + bytes([len(password)]) + password
    login = parts(parse_login, message)
    assert isinstance(login, Login)
    assert login.user == user
    assert login.password.encode("utf-8", "surrogateescape") == password


@given(st.integers(0, 255), hosts, ports)
def test_request_of_version_5(command: int, host: str, port: int) -> None:
    """Any command, to a name or an address."""
    message = bytes([5, command, 0]) + address5(host, port)
    assert parts(parse_request5, message) == Request(command, Target(host, port))


@given(st.integers(0, 255), st.ip_addresses(v=4), ports, users)
def test_request_of_version_4(command: int, address: ipaddress.IPv4Address, port: int, user: str) -> None:
    """What follows the version: with an address, unless it stands for a name."""
    is_name = address.packed[:3] == bytes(3) and address.packed[3] != 0
    message = bytes([command]) + port.to_bytes(2) + address.packed + user.encode() + b"\0"
    if is_name:
        message += b"example.org\0"
    host = "example.org" if is_name else str(address)
    assert parts(parse_request4, message) == Request(command, Target(host, port), user)


@given(hosts, ports, st.binary(), st.integers(0, 255))
def test_datagram(host: str, port: int, payload: bytes, fragment: int) -> None:
    """A packet of a client."""
    data = bytes([0, 0, fragment]) + address5(host, port) + payload
    assert parse_datagram(data) == Datagram(Target(host, port), payload, fragment)


@given(st.ip_addresses(), ports, st.binary())
def test_what_we_write_is_what_others_read(address: object, port: int, payload: bytes) -> None:
    """Packets and replies have the address in the form of SOCKS 5."""
    host = str(address)
    assert parse_datagram(encode_datagram(host, port, payload)) == Datagram(Target(host, port), payload)
    assert encode_reply5(Code.SUCCEEDED, host, port) == bytes([5, 0, 0]) + address5(host, port)


def test_replies() -> None:
    """In the numbers of each version."""
    assert encode_reply5(Code.NOT_ALLOWED) == bytes([5, 2, 0, 1, 0, 0, 0, 0, 0, 0])
    assert encode_reply4(Code.SUCCEEDED) == bytes([0, 90, 0, 0, 0, 0, 0, 0])
    assert encode_reply4(Code.NOT_ALLOWED) == bytes([0, 91, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("parse", PARSERS)
@given(data=st.binary(max_size=600))
def test_no_bytes_break_a_parser(parse: Callable[[bytes], object], data: bytes) -> None:
    """They are a message, the beginning of one, or malformed; and never need more than 600 bytes."""
    with suppress(Incomplete, Malformed):
        parse(data)
    with suppress(Malformed):
        parse(data + bytes(1100 - len(data)))


@given(st.binary(max_size=600))
def test_no_packet_breaks_the_parser(data: bytes) -> None:
    """A packet is all there or malformed."""
    with suppress(Malformed):
        parse_datagram(data)


@pytest.mark.parametrize(
    ("parse", "message", "why"),
    [
        (parse_greeting, b"GET / HTTP/1.1\r\n", "does not use SOCKS: its first byte is 0x47"),
        (parse_login, b"\x05\x01a\x01b", "login is not of version 1"),
        (parse_request5, b"\x04\x01\0\x01" + bytes(6), "request is of version 4"),
        (parse_request5, b"\x05\x01\0\x02" + bytes(6), "unknown type 2"),
        (parse_request5, b"\x05\x01\0\x03\0" + bytes(2), "an empty name"),
        (parse_request5, b"\x05\x01\0\x03\x07a\nb: cd" + bytes(2), "is not a host name"),
        (parse_request5, b"\x05\x01\0\x03\x02\xc3\xa9" + bytes(2), "is not a host name"),
        (parse_request4, bytes(7) + b"u" * 256, "a name of more than 255 bytes"),
        (parse_request4, bytes(6) + b"\x01user\0" + b"n" * 256, "a name of more than 255 bytes"),
    ],
)
def test_malformed(parse: Callable[[bytes], object], message: bytes, why: str) -> None:
    """With the reason, for the log; nothing of it can break a line."""
    with pytest.raises(Malformed, match=why):
        parse(message)
