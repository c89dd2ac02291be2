"""The messages of SOCKS 4, 4a and 5, as bytes and as values. This module reads no connection itself.

SOCKS 4 and 4a have no RFC: they are the memos "SOCKS: A protocol for TCP proxy across firewalls" and "SOCKS
4A: A Simple Extension to SOCKS 4 Protocol". SOCKS 5 is RFC 1928, its passwords are RFC 1929.

The parsers are for `read_message`: they raise only ``Incomplete`` and ``Malformed``.
"""

import enum
import ipaddress
from dataclasses import dataclass
from typing import Final

from tamed.net.endpoint import TcpEndpoint, address_text
from tamed.net.framing import Incomplete, Malformed, take

__all__ = [
    "Code",
    "Command",
    "Datagram",
    "Greeting",
    "Login",
    "Method",
    "Request",
    "RequestRefused",
    "Target",
    "encode_datagram",
    "encode_reply4",
    "encode_reply5",
    "parse_datagram",
    "parse_greeting",
    "parse_login",
    "parse_request4",
    "parse_request5",
]

_LONGEST: Final = 255
"""Maximum bytes of a name or a user in SOCKS 4, which has no limit; this is the limit of SOCKS 5."""


class Command(enum.IntEnum):
    """The command of a request; SOCKS 4 has the first two. Others are read as numbers."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Method(enum.IntEnum):
    """How a client of SOCKS 5 authenticates itself."""

    NONE = 0
    PASSWORD = 2
    NO_ACCEPTABLE = 0xFF


class Code(enum.IntEnum):
    """The result of a request, in the numbers of RFC 1928, section 6."""

    SUCCEEDED = 0
    FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8


class RequestRefused(Exception):
    """A request that is not allowed or not possible: ``code`` is for the client, ``why`` for the log."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(code, why)
        self.code = code
        self.why = why


@dataclass(frozen=True, slots=True)
class Target:
    """A host, by its name or its IP address in canonical form, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return address_text((self.host, self.port))


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first message: the version, and the methods that a client of SOCKS 5 offers."""

    version: int
    methods: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password; bytes that are not UTF-8 are lone surrogates."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Request:
    """A command and its target, and with SOCKS 4 the user that the client claims to be."""

    command: int
    target: Target
    user: str = ""


@dataclass(frozen=True, slots=True)
class Datagram:
    """A packet from or to a client, with the target's address; ``fragment`` is 0 for a whole one."""

    target: Target
    payload: bytes
    fragment: int = 0


def parse_greeting(data: bytes) -> Greeting:
    """Read the version, and for SOCKS 5 the methods that follow; SOCKS 4 continues with its request."""
    version = take(data, 0, 1)[0]
    if version == 4:
        return Greeting(version)
    if version != 5:
        raise Malformed(f"it does not use SOCKS: its first byte is {version:#04x}")
    return Greeting(version, frozenset(take(data, 2, take(data, 1, 1)[0])))


def parse_login(data: bytes) -> Login:
    """Read a user and a password (RFC 1929)."""
    if take(data, 0, 1)[0] != 1:
        raise Malformed("its login is not of version 1")
    user = take(data, 2, take(data, 1, 1)[0])
    after = 2 + len(user)
    return Login(_text(user), _text(take(data, after + 1, take(data, after, 1)[0])))


def parse_request4(data: bytes) -> Request:
    """Read what follows the version of SOCKS 4; with an address 0.0.0.x it is 4a, and a name follows."""
    command = take(data, 0, 1)[0]
    port = int.from_bytes(take(data, 1, 2))
    address = take(data, 3, 4)
    user = _terminated(data, 7)
    if address[:3] == bytes(3) and address[3]:
        host = _name(_terminated(data, 7 + len(user) + 1))
    else:
        host = str(ipaddress.IPv4Address(address))
    return Request(command, Target(host, port), _text(user))


def parse_request5(data: bytes) -> Request:
    """Read a request of SOCKS 5."""
    version, command, _ = take(data, 0, 3)
    if version != 5:
        raise Malformed(f"its request is of version {version}")
    target, _ = _target(data, 3)
    return Request(command, target)


def parse_datagram(data: bytes) -> Datagram:
    """Read a client's packet; one that is too short is malformed."""
    try:
        target, end = _target(data, 3)
    except Incomplete:
        raise Malformed("the packet is too short") from None
    return Datagram(target, data[end:], data[2])


def encode_reply4(code: Code) -> bytes:
    """Write the answer to a request of SOCKS 4: granted, or rejected."""
    return bytes([0, 90 if code is Code.SUCCEEDED else 91]) + bytes(6)


def encode_reply5(code: Code, host: str = "0.0.0.0", port: int = 0) -> bytes:  # noqa: S104 - "no address"
    """Write the answer to a request of SOCKS 5, with the IP address and port that are used for it."""
    return bytes([5, code, 0]) + _encoded(host, port)


def encode_datagram(host: str, port: int, payload: bytes) -> bytes:
    """Write a packet from an IP address, for a client."""
    return bytes(3) + _encoded(host, port) + payload


def _target(data: bytes, start: int) -> tuple[Target, int]:
    """Read an address in the format of SOCKS 5; return it and the offset of its end."""
    kind = take(data, start, 1)[0]
    begin = start + 1
    match kind:
        case 1:
            end = begin + 4
            host = str(ipaddress.IPv4Address(take(data, begin, 4)))
        case 3:
            end = begin + 1 + take(data, begin, 1)[0]
            host = _name(take(data, begin + 1, end - begin - 1))
        case 4:
            end = begin + 16
            host = str(ipaddress.IPv6Address(take(data, begin, 16)))
        case _:
            raise Malformed(f"it has an address of the unknown type {kind}")
    return Target(host, int.from_bytes(take(data, end, 2))), end + 2


def _terminated(data: bytes, start: int) -> bytes:
    """Return the bytes up to a zero byte."""
    end = data.find(0, start, start + _LONGEST + 1)
    if end >= 0:
        return data[start:end]
    if len(data) > start + _LONGEST:
        raise Malformed(f"it has a name of more than {_LONGEST} bytes")
    raise Incomplete(1)


def _name(data: bytes) -> str:
    """Return a host in its canonical form; some clients write addresses here."""
    try:
        host = TcpEndpoint(data.decode("ascii"), 0).host
    except ValueError:  # UnicodeDecodeError too
        raise Malformed(f"{data!r} is not a host name") from None
    if not host:
        raise Malformed("it has an empty name")
    return host.removesuffix(".")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _encoded(host: str, port: int) -> bytes:
    address = ipaddress.ip_address(host.partition("%")[0])
    return bytes([1 if address.version == 4 else 4]) + address.packed + port.to_bytes(2)
