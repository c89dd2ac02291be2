"""Trusted proxies, and their headers about clients."""

import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple

from tamed.web.asgi import Scope

__all__ = ["TrustedProxies"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""Some proxies send the schemes of WebSockets."""

_UNIX: Final = "unix"
_MOST: Final = 100
"""Maximum number of elements of X-Forwarded-For to read, starting with the nearest proxy."""


class _Client(NamedTuple):
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int


class TrustedProxies:
    """The proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are trusted.

    ``trusted`` are addresses and networks; ``unix`` means every peer on a unix socket. Raises ValueError for
    anything else. Each proxy appends its client's address, so the client is the last one that is not a
    trusted proxy. If an element after it is not an address, the header is ignored, and the client is the
    proxy.
    """

    def __init__(self, trusted: Iterable[str]) -> None:
        names = list(trusted)
        self._unix = _UNIX in names
        self._networks: list[_Network] = [ipaddress.ip_network(each) for each in names if each != _UNIX]

    def trusts_peer(self, peer: tuple[str, int] | None) -> bool:
        """Return whether the peer of a connection is a trusted proxy; a unix socket's peer is None."""
        if peer is None:
            return self._unix
        client = _parsed(peer[0]) if self._networks else None
        return client is not None and self._trusts(client)

    def believe(self, scope: Scope) -> None:
        """Set the client and the scheme of a request from the headers of its proxies."""
        headers = scope["headers"]
        schemes = [value for name, value in headers if name == b"x-forwarded-proto"]
        if schemes and (scheme := schemes[-1].decode("latin-1").strip().lower()) in _SCHEMES:
            scope["scheme"] = _SCHEMES[scheme]
        clients = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        client = self._client(clients.decode("latin-1").split(",")[-_MOST:])
        if client is not None:
            scope["client"] = (str(client.address), client.port)

    def _client(self, elements: list[str]) -> _Client | None:
        client = None
        for element in reversed(elements):
            client = _parsed(element.strip())
            if client is None or not self._trusts(client):
                break
        return client

    def _trusts(self, client: _Client) -> bool:
        return any(client.address in network for network in self._networks)


def _parsed(text: str) -> _Client | None:
    """Read ``ADDRESS``, ``IPV4:PORT`` or ``[IPV6]:PORT``; a mapped IPv4 address is unmapped."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and int(port[:6]) < 1 << 16):
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return _Client(mapped or address, int(port or 0))
