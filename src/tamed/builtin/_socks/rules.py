"""The targets that a proxy's clients may reach: patterns of hosts and ports, and the rules made from them.

Nothing here looks a name up or connects: names and addresses are arguments.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from tamed.net.endpoint import TcpEndpoint

__all__ = ["IpAddress", "IpNetwork", "TargetPattern", "TargetRules", "equivalent_addresses"]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_ALL_PORTS = (0, 65535)
_EXPECTED = "expected HOST, *.DOMAIN, ADDRESS, NETWORK/BITS or *, with an optional :PORT or :PORT-PORT"

_REFUSED: Final[dict[IpNetwork, str]] = {
    ipaddress.ip_network(network): why
    for why, networks in {
        "this machine itself": ("127.0.0.0/8", "::1/128", "0.0.0.0/8", "::/128"),
        "link-local": ("169.254.0.0/16", "fe80::/10"),
        # Amazon's and Google's over IPv6, Alibaba's, Oracle's and Azure's; all others are link-local.
        "cloud metadata": (
            "fd00:ec2::254/128",
            "fd20:ce::254/128",
            "100.100.100.200/32",
            "192.0.0.192/32",
            "168.63.129.16/32",
        ),
        "multicast or broadcast": ("224.0.0.0/4", "ff00::/8", "255.255.255.255/32"),
    }.items()
    for network in networks
}

_REFUSED_NAMES: Final = frozenset(
    {
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.azure.internal",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
    }
)

_LAST_BITS: Final = (
    ipaddress.IPv6Network("64:ff9b::/96"),  # NAT64 (RFC 6052)
    ipaddress.IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated, of SIIT (RFC 2765, RFC 7915)
)
"""Networks in which the last 32 bits are an IPv4 address that a gateway connects to."""

_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
"""RFC 8215: the operator chooses the length of the prefix, and so the place of the IPv4 address."""

_EMBEDDED: Final = (slice(6, 11), slice(7, 12), slice(8, 13), slice(12, 16))
"""The bytes of an IPv4 address after prefixes of 48, 56, 64 and 96 bits, without byte 8 (RFC 6052, 2.2)."""

_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
"""IPv4-compatible addresses (RFC 4291, 2.5.5.1): deprecated, but checked, or they would evade the rules."""


@dataclass(frozen=True, slots=True)
class TargetPattern:
    """Hosts, by an address, a network or a name, and ports: ``10.0.0.0/8``, ``*.example.org:443``, ``*:25``.

    ``network`` is set for addresses, ``name`` for names: one name, all names below a domain
    (``*.example.org``), or ``*`` for everything, addresses too. IPv6 is in brackets when a port follows:
    ``[2001:db8::/32]:8000-8999``. ``str()`` gives a text that `parse` reads.
    """

    name: str = ""
    network: IpNetwork | None = None
    ports: tuple[int, int] = _ALL_PORTS

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern. Raises ValueError, which names the expected form."""
        host, ports = _host_and_ports(text)
        network = _network(host)
        return cls(_name(host) if network is None else "", network, _ports(ports))

    def matches_name(self, name: str, port: int) -> bool:
        """Return whether a host of this name matches, with any address."""
        if self.network is not None or not self._has_port(port):
            return False
        if self.name.startswith("*."):
            return name.endswith(self.name[1:])
        return self.name in ("*", name)

    def matches_any(self, addresses: Iterable[IpAddress], port: int) -> bool:
        """Return whether one of the addresses matches, with any name."""
        if not self._has_port(port):
            return False
        network = self.network
        return self.name == "*" if network is None else any(address in network for address in addresses)

    def _has_port(self, port: int) -> bool:
        return self.ports[0] <= port <= self.ports[1]

    def __str__(self) -> str:
        host = self.name if self.network is None else str(self.network)
        if self.ports == _ALL_PORTS:
            return host
        low, high = self.ports
        ports = str(low) if low == high else f"{low}-{high}"
        return f"[{host}]:{ports}" if ":" in host else f"{host}:{ports}"


def _host_and_ports(text: str) -> tuple[str, str | None]:
    if found := re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text):
        if ":" not in found[1]:
            raise ValueError(f"brackets are for IPv6, but {found[1]!r} is not an IPv6 address; {_EXPECTED}")
        return found[1], found[2]
    if text.count(":") > 1:
        return text, None
    host, colon, ports = text.partition(":")
    return host, ports if colon else None


def _network(host: str) -> IpNetwork | None:
    """Return a network or an address; None for a pattern of names."""
    looks_like_one = ":" in host or "/" in host or re.fullmatch(r"[0-9.]+", host)
    if not looks_like_one:
        return None
    try:
        return ipaddress.ip_network(host)
    except ValueError as error:
        raise ValueError(f"{error}; {_EXPECTED}") from None


def _name(host: str) -> str:
    name = host.lower().removesuffix(".")
    if name == "*":
        return name
    try:
        if TcpEndpoint(name.removeprefix("*."), 0).host:
            return name
    except ValueError:
        pass
    raise ValueError(f"{host!r} is not a host pattern; {_EXPECTED}")


def _ports(text: str | None) -> tuple[int, int]:
    if text is None:
        return _ALL_PORTS
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if found is None:
        raise ValueError(f"{text!r} is not a port; {_EXPECTED}")
    low, high = int(found[1]), int(found[2] or found[1])
    if not low <= high <= 65535:
        raise ValueError(f"ports {text} are out of order or above 65535")
    return low, high


class TargetRules:
    """Checks a target by the name that the client sent *and* by each address of that name.

    In this order: what a ``deny`` pattern matches is refused. So are this machine, link-local, metadata,
    multicast and broadcast addresses and the names of metadata services, unless an ``allow`` pattern names
    exactly these: a network within the refused one, or the very name. If there are ``allow`` patterns, what
    none of them matches is refused. Everything else is allowed.

    An IPv6 address that embeds an IPv4 address (mapped, NAT64, SIIT, 6to4, Teredo) is checked as both. The
    caller must connect to the address that was checked, and not look the name up again.
    """

    def __init__(self, allow: Sequence[TargetPattern] = (), deny: Sequence[TargetPattern] = ()) -> None:
        self._allow = tuple(allow)
        self._deny = tuple(deny)

    def refusal_of_name(self, name: str, port: int) -> str:
        """Return the reason why a host of this name is refused; empty if its addresses decide."""
        for pattern in self._deny:
            if pattern.matches_name(name, port):
                return f"denied by {pattern}"
        lifted = any(pattern.name == name and pattern.matches_name(name, port) for pattern in self._allow)
        return "cloud metadata" if name in _REFUSED_NAMES and not lifted else ""

    def refusal(self, name: str, address: str, port: int) -> str:
        """Return the reason why an address, of a host of that name, is refused; empty if it is allowed.

        ``name`` is the address itself when the client gave one.
        """
        addresses = equivalent_addresses(address)
        for pattern in self._deny:
            if pattern.matches_any(addresses, port):
                return f"denied by {pattern}"
        for network, why in _REFUSED.items():
            if any(each in network and not self._lifts(network, each, port) for each in addresses):
                return why
        return "" if self._allowed(name, addresses, port) else "not allowed"

    def _lifts(self, refused: IpNetwork, address: IpAddress, port: int) -> bool:
        """Return whether a pattern allows an address although its network is refused."""
        return any(
            pattern.network is not None
            and pattern.matches_any((address,), port)
            and pattern.network.prefixlen >= refused.prefixlen
            for pattern in self._allow
        )

    def _allowed(self, name: str, addresses: Iterable[IpAddress], port: int) -> bool:
        if not self._allow:
            return True
        return any(
            pattern.matches_name(name, port) or pattern.matches_any(addresses, port)
            for pattern in self._allow
        )


def equivalent_addresses(text: str) -> tuple[IpAddress, ...]:
    """Return an IP address and the IPv4 addresses that it may embed; its zone is left out."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())[1:]]
    if any(address in network for network in _LAST_BITS) or (address in _COMPATIBLE and int(address) > 1):
        inner.append(ipaddress.IPv4Address(address.packed[-4:]))
    if address in _LOCAL_NAT64:
        inner += _embedded(address.packed)
    return (address, *(one for one in inner if one is not None))


def _embedded(packed: bytes) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an address with a prefix of unknown length may embed.

    One that begins with a zero is none: with a longer prefix those bytes are padding.
    """
    found = (
        bytes(packed[index] for index in range(place.start, place.stop) if index != 8) for place in _EMBEDDED
    )
    return [ipaddress.IPv4Address(octets) for octets in found if octets[0]]
