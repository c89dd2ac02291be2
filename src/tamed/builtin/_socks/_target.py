"""A pattern of targets: which hosts and which ports a rule is about."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from tamed.net.endpoint import TcpEndpoint

__all__ = ["IpAddress", "IpNetwork", "TargetPattern"]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_ALL_PORTS = (0, 65535)
_EXPECTED = (
    "expected HOST, *.DOMAIN, ADDRESS, NETWORK/BITS or *, and :PORT or :PORT-PORT behind it if need be"
)


@dataclass(frozen=True, slots=True)
class TargetPattern:
    """Hosts, by an address, a network or a name, and ports: ``10.0.0.0/8``, ``*.example.org:443``, ``*:25``.

    ``network`` is set if it is about addresses, ``name`` if it is about names: one name, all names below a
    domain (``*.example.org``), or ``*`` for everything, addresses too. IPv6 stands in brackets when a port
    follows: ``[2001:db8::/32]:8000-8999``. ``str()`` gives a text that `parse` reads.
    """

    name: str = ""
    network: IpNetwork | None = None
    ports: tuple[int, int] = _ALL_PORTS

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern. Raises ValueError, which says what was expected."""
        host, ports = _host_and_ports(text)
        try:
            return cls(network=_network(host), ports=_ports(ports))
        except _NoNetwork:
            return cls(name=_name(host), ports=_ports(ports))

    def has_name(self, name: str, port: int) -> bool:
        """Tell whether a host of this name is meant, whatever its addresses."""
        if self.network is not None or not self._has_port(port):
            return False
        if self.name.startswith("*."):
            return name.endswith(self.name[1:])
        return self.name in ("*", name)

    def has_any(self, addresses: Iterable[IpAddress], port: int) -> bool:
        """Tell whether one of some addresses is meant, whatever their name."""
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


class _NoNetwork(Exception):
    """A text that is about names."""


def _host_and_ports(text: str) -> tuple[str, str | None]:
    if found := re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text):
        if ":" not in found[1]:
            raise ValueError(f"brackets are for IPv6, and {found[1]!r} is none; {_EXPECTED}")
        return found[1], found[2]
    if text.count(":") > 1:
        return text, None
    host, colon, ports = text.partition(":")
    return host, ports if colon else None


def _network(host: str) -> IpNetwork:
    looks_like_one = ":" in host or "/" in host or re.fullmatch(r"[0-9.]+", host)
    if not looks_like_one:
        raise _NoNetwork
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
    raise ValueError(f"{host!r} is no pattern of hosts; {_EXPECTED}")


def _ports(text: str | None) -> tuple[int, int]:
    if text is None:
        return _ALL_PORTS
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if found is None:
        raise ValueError(f"{text!r} is no port; {_EXPECTED}")
    low, high = int(found[1]), int(found[2] or found[1])
    if not low <= high <= 65535:
        raise ValueError(f"ports {text} are out of order or above 65535")
    return low, high
