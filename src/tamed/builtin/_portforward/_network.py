"""Networks of peers that are trusted with something."""

import ipaddress
from dataclasses import dataclass
from typing import Self

__all__ = ["Network"]


@dataclass(frozen=True, slots=True)
class Network:
    """Peers: an IP network, ``10.0.0.0/8``, one address, or with ``unix`` those of unix sockets."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a network. Raises ValueError, which says what was expected."""
        if text == "unix":
            return cls(None)
        try:
            return cls(ipaddress.ip_network(text))
        except ValueError as error:
            raise ValueError(f"{error}; expected an address, ADDRESS/BITS or unix") from None

    def has(self, peer: object) -> bool:
        """Tell whether a peer is among these; ``peer`` is what ``getpeername`` returns."""
        match peer:
            case (str(host), *_):
                address = ipaddress.ip_address(host.partition("%")[0])
                mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
                return self.network is not None and (mapped or address) in self.network
            case _:
                return self.network is None

    def __str__(self) -> str:
        return "unix" if self.network is None else str(self.network)
