"""The PROXY protocol, versions 1 and 2: the original client of a connection. It reads no connection itself.

"The PROXY protocol, Versions 1 & 2", W. Tarreau, HAProxy Technologies. A header has the addresses that the
first proxy of a chain saw; the connection's own bytes follow it.
"""

import enum
import ipaddress
import re
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from tamed.net.address_limit import plain_address
from tamed.net.endpoint import address_text
from tamed.net.framing import Incomplete, Malformed, take

__all__ = [
    "Ends",
    "IpEnd",
    "IpEnds",
    "Network",
    "ProxyHeader",
    "UnixEnds",
    "encode_v1",
    "encode_v2",
    "ends_of",
    "parse_header",
]

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"

_LONGEST_V1: Final = 107
"""Bytes of the longest line, its end included (2.1)."""

_SHORTEST: Final = len(b"PROXY UNKNOWN\r\n")
"""Bytes of the shortest header of either version: this many may be read before the version is known."""

_V1: Final = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5})")
_UNIX_PATH: Final = 108
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31


class IpEnd(NamedTuple):
    """One end of a TCP connection."""

    host: str
    port: int


class IpEnds(NamedTuple):
    """Both ends of a TCP connection, of the same address family."""

    source: IpEnd
    destination: IpEnd

    def __str__(self) -> str:
        return address_text(self.source)


class UnixEnds(NamedTuple):
    """Both ends of a connection of unix sockets, by their paths; a client's is usually empty."""

    source: bytes
    destination: bytes

    def __str__(self) -> str:
        return address_text(self.source)


Ends = IpEnds | UnixEnds


def ends_of(source: object, destination: object) -> Ends | None:
    """Convert the results of ``getpeername`` and ``getsockname``; None if their family is unknown."""
    match source, destination:
        case (str(host), int(port), *_), (str(our_host), int(our_port), *_):
            return IpEnds(IpEnd(host.partition("%")[0], port), IpEnd(our_host.partition("%")[0], our_port))
        case (str() | bytes(), str() | bytes()):
            return UnixEnds(_unix_path(source), _unix_path(destination))
        case _:
            return None


def parse_header(data: bytes) -> Ends | None:
    """Read a header of either version, for `read_message`.

    None is a header without ends: of a proxy's own connection, usually a health check, or of an unknown
    family. Raises Incomplete and Malformed, and nothing else.
    """
    start = data[:_SHORTEST]
    if not (b"PROXY ".startswith(start[:6]) or _SIGNATURE.startswith(start[: len(_SIGNATURE)])):
        raise Malformed("it does not begin with a PROXY header")
    take(data, 0, _SHORTEST)
    return _parse_v2(data) if start.startswith(_SIGNATURE) else _parse_v1(data)


def encode_v1(ends: Ends | None) -> bytes:
    """Write a line of version 1, which knows TCP only."""
    if not isinstance(ends, IpEnds):
        return b"PROXY UNKNOWN\r\n"
    family = "TCP6" if ":" in ends.source.host else "TCP4"
    hosts = f"{ends.source.host} {ends.destination.host}"
    return f"PROXY {family} {hosts} {ends.source.port} {ends.destination.port}\r\n".encode("ascii")


def encode_v2(ends: Ends | None) -> bytes:
    """Write a header of version 2; without ends, that of a proxy's own connection."""
    if ends is None:
        return _SIGNATURE + bytes([_LOCAL, 0, 0, 0])
    if isinstance(ends, UnixEnds):
        family, addresses = _UNIX, b"".join(path.ljust(_UNIX_PATH, b"\0") for path in ends)
    else:
        packed = [ipaddress.ip_address(end.host).packed for end in ends]
        family = _TCP4 if len(packed[0]) == 4 else _TCP6
        addresses = b"".join([*packed, *(end.port.to_bytes(2) for end in ends)])
    return _SIGNATURE + bytes([_PROXY, family]) + len(addresses).to_bytes(2) + addresses


class ProxyHeader(enum.Enum):
    """Which PROXY header the upstreams are sent."""

    NONE = "none"
    V1 = "v1"
    V2 = "v2"

    def encode(self, ends: Ends | None) -> bytes:
        """Write the header; without ends, that of a proxy's own connection."""
        match self:
            case ProxyHeader.NONE:
                return b""
            case ProxyHeader.V1:
                return encode_v1(ends)
            case ProxyHeader.V2:
                return encode_v2(ends)


@dataclass(frozen=True, slots=True)
class Network:
    """Peers: of an IP network, such as ``10.0.0.0/8`` or one address, or with ``unix`` of unix sockets."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a network. Raises ValueError, which names the expected form."""
        if text == "unix":
            return cls(None)
        try:
            return cls(ipaddress.ip_network(text))
        except ValueError as error:
            raise ValueError(f"{error}; expected an address, ADDRESS/BITS or unix") from None

    def has(self, peer: object) -> bool:
        """Return whether a peer is in the network; ``peer`` is what ``getpeername`` returns."""
        match peer:
            case (str(host), *_):
                return self.network is not None and plain_address(host) in self.network
            case _:
                return self.network is None

    def __str__(self) -> str:
        return "unix" if self.network is None else str(self.network)


def _parse_v1(data: bytes) -> Ends | None:
    line, end, _ = data[:_LONGEST_V1].partition(b"\r\n")
    if not end:
        if len(data) >= _LONGEST_V1:
            raise Malformed(f"its PROXY line has more than {_LONGEST_V1} bytes")
        raise Incomplete(1 if data.endswith(b"\r") else min(2, _LONGEST_V1 - len(data)))
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return None
    found = _V1.fullmatch(line)
    if found is None:
        raise Malformed("its PROXY line is invalid")
    family, source, destination, *ports = (part.decode("ascii") for part in found.groups())
    address = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        hosts = [str(address(text)) for text in (source, destination)]
    except ValueError:
        raise Malformed("its PROXY line has invalid addresses") from None
    if max(map(int, ports)) > 65535:
        raise Malformed("its PROXY line has invalid ports")
    return IpEnds(IpEnd(hosts[0], int(ports[0])), IpEnd(hosts[1], int(ports[1])))


def _parse_v2(data: bytes) -> Ends | None:
    command, family = take(data, 12, 2)
    if command not in (_LOCAL, _PROXY):
        raise Malformed(f"its PROXY header has the unknown version and command {command:#04x}")
    body = take(data, 16, int.from_bytes(take(data, 14, 2)))
    if command == _LOCAL:
        return None
    try:
        match family:
            case 0x11:  # TCP over IPv4
                return _ip_ends(body, 4)
            case 0x21:  # TCP over IPv6
                return _ip_ends(body, 16)
            case 0x31:  # a unix stream
                source = take(body, 0, _UNIX_PATH)
                return UnixEnds(_unpadded(source), _unpadded(take(body, _UNIX_PATH, _UNIX_PATH)))
            case _:
                return None
    except Incomplete:
        raise Malformed("its PROXY header is too short for its addresses") from None


def _ip_ends(body: bytes, size: int) -> IpEnds:
    source, destination = (str(ipaddress.ip_address(take(body, start, size))) for start in (0, size))
    ports = take(body, 2 * size, 4)
    return IpEnds(IpEnd(source, int.from_bytes(ports[:2])), IpEnd(destination, int.from_bytes(ports[2:])))


def _unix_path(name: str | bytes) -> bytes:
    path = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return path[:_UNIX_PATH]


def _unpadded(path: bytes) -> bytes:
    """Strip the zeros at the end; an abstract name begins with one."""
    return path.rstrip(b"\0")
