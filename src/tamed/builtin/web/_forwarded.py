"""Who a client is, if a proxy that is trusted says so."""

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

__all__ = ["Forwarded"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SCHEMES: Final = {"http", "https"}
_MOST: Final = 100
"""How many elements of X-Forwarded-For are looked at, from the nearest proxy on."""


class _Client(NamedTuple):
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int


class Forwarded:
    """Believes the headers ``X-Forwarded-For`` and ``X-Forwarded-Proto`` of trusted proxies, as ASGI.

    Each proxy adds its client at the end, so the client is the last that is no trusted proxy itself. If an
    element up to there is no address, none of them is believed, and the client is the proxy.
    """

    def __init__(self, application: "ASGI3Application", trusted: Sequence[str]) -> None:
        self._application = application
        self._networks: list[_Network] = [ipaddress.ip_network(each) for each in trusted]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request (ASGI)."""
        peer = _parsed(scope["client"][0]) if self._networks and scope.get("client") else None
        if peer is not None and self._trusts(peer):
            self._believe(scope)
        await self._application(scope, receive, send)

    def _believe(self, scope: Any) -> None:
        schemes = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        if schemes and (scheme := schemes[-1].decode("latin-1").strip().lower()) in _SCHEMES:
            scope["scheme"] = scheme
        clients = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
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
    """Read ``ADDRESS``, ``IPV4:PORT`` or ``[IPV6]:PORT``; a mapped IPv4 address stands for itself."""
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
