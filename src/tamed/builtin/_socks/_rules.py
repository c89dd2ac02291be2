"""Which targets a proxy lets its clients reach."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from tamed.builtin._socks._target import IpAddress, IpNetwork, TargetPattern

__all__ = ["TargetRules", "meanings"]

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
"""RFC 8215: the operator chooses the length of the prefix, and so where the IPv4 address stands."""

_EMBEDDED: Final = (slice(6, 11), slice(7, 12), slice(8, 13), slice(12, 16))
"""The bytes of an IPv4 address after prefixes of 48, 56, 64 and 96 bits, without byte 8 (RFC 6052, 2.2)."""

_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
"""IPv4-compatible addresses (RFC 4291, 2.5.5.1): deprecated, and here so that nothing passes by them."""


class TargetRules:
    """What is allowed and denied, judged by the name that was asked for *and* by each address it has.

    In this order: what a ``deny`` pattern matches is refused. So are this machine, link-local, metadata,
    multicast and broadcast addresses and the names of metadata services, unless an ``allow`` pattern is
    about just these: a network within the refused one, or the very name. If there are ``allow`` patterns,
    what none of them matches is refused. All else is allowed.

    An IPv6 address that stands for an IPv4 address (mapped, NAT64, SIIT, 6to4) is judged as both. Whoever
    connects must connect to the address that was judged, and not look the name up again.
    """

    def __init__(self, allow: Sequence[TargetPattern] = (), deny: Sequence[TargetPattern] = ()) -> None:
        self._allow = tuple(allow)
        self._deny = tuple(deny)

    def refusal_of_name(self, name: str, port: int) -> str:
        """Say why no host of this name is allowed; empty if its addresses may be."""
        for pattern in self._deny:
            if pattern.has_name(name, port):
                return f"denied by {pattern}"
        lifted = any(pattern.name == name and pattern.has_name(name, port) for pattern in self._allow)
        return "cloud metadata" if name in _REFUSED_NAMES and not lifted else ""

    def refusal(self, name: str, address: str, port: int) -> str:
        """Say why an address, of a host of that name, is not allowed; empty if it is.

        ``name`` is the address itself when the client gave one.
        """
        addresses = meanings(address)
        for pattern in self._deny:
            if pattern.has_any(addresses, port):
                return f"denied by {pattern}"
        for network, why in _REFUSED.items():
            if any(meaning in network and not self._lifts(network, meaning, port) for meaning in addresses):
                return why
        return "" if self._allowed(name, addresses, port) else "not allowed"

    def _lifts(self, refused: IpNetwork, address: IpAddress, port: int) -> bool:
        """Tell whether a pattern allows an address although its network is refused."""
        return any(
            pattern.network is not None
            and pattern.has_any((address,), port)
            and pattern.network.prefixlen >= refused.prefixlen
            for pattern in self._allow
        )

    def _allowed(self, name: str, addresses: Iterable[IpAddress], port: int) -> bool:
        if not self._allow:
            return True
        return any(
            pattern.has_name(name, port) or pattern.has_any(addresses, port) for pattern in self._allow
        )


def meanings(text: str) -> tuple[IpAddress, ...]:
    """Return an IP address and the IPv4 addresses that it stands for; its zone is left out."""
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
    """Return the IPv4 addresses that may be meant by an address with a prefix of unknown length.

    One that begins with a zero is none: with a longer prefix those bytes are padding.
    """
    found = (
        bytes(packed[index] for index in range(place.start, place.stop) if index != 8) for place in _EMBEDDED
    )
    return [ipaddress.IPv4Address(octets) for octets in found if octets[0]]
