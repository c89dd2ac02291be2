"""Proxies in front of the server: a client's address from a request's headers, or from a PROXY header."""

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, cast

from tamed.log.logger import own_logger
from tamed.net.framing import Incomplete, Malformed
from tamed.net.listen import current_environment
from tamed.net.proxy_header import Ends, IpEnds, Network, parse_header
from tamed.web.asgi import Scope

__all__ = ["ProxiedConnection", "TrustedProxies"]

log = own_logger("web")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""Some proxies send the schemes of WebSockets."""

_UNIX: Final = "unix"
_MOST: Final = 100
"""Maximum number of elements of X-Forwarded-For to read, starting with the nearest proxy."""

_LINGER: Final = 2.0
"""Seconds for a proxy to send the header during a drain."""


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


class ProxiedConnection(asyncio.Protocol):
    """Reads the PROXY header of a connection, and hands it over to the protocol that ``make`` creates.

    Peers in ``networks`` must send a header within ``timeout`` seconds; data of other peers is never treated
    as a header. ``make`` has the argument ``ends``: those in the header, if it has IP addresses.
    """

    def __init__(self, networks: Sequence[Network], make: Callable[..., Any], timeout: float) -> None:
        self._networks = networks
        self._make = make
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._begun = b""
        self._size = 0  # bytes that certainly belong to the header
        self._is_draining = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the header, if the peer is a proxy."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if any(network.has(peer) for network in self._networks):
            self._timer = self._loop.call_later(
                self._timeout, self._refuse, "it sent no PROXY header in time"
            )
        else:
            self._hand_over(None)

    def data_received(self, data: bytes) -> None:
        """Read the received part of the header."""
        self._begun += data
        while self._size <= len(self._begun):
            try:
                ends = parse_header(self._begun[: self._size])
            except Incomplete as incomplete:
                self._size += incomplete.missing
            except Malformed as error:
                self._refuse(str(error))
                return
            else:
                self._hand_over(ends)
                return

    def connection_draining(self) -> None:
        """Wait briefly for the header, unless other processes serve; the server calls this when it stops."""
        self._is_draining = True
        if self._timer is not None and current_environment().gate.is_open:
            self._timer.cancel()
            self._timer = self._loop.call_later(min(_LINGER, self._timeout), self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection."""
        self._forget_timer()

    def _hand_over(self, ends: Ends | None) -> None:
        self._forget_timer()
        made = self._make(ends=ends if isinstance(ends, IpEnds) else None)
        transport = self._transport
        transport.set_protocol(made)
        made.connection_made(transport)
        if self._is_draining:
            made.connection_draining()
        if rest := self._begun[self._size :]:
            cast(asyncio.Protocol, transport.get_protocol()).data_received(rest)

    def _refuse(self, why: str) -> None:
        peer = self._transport.get_extra_info("peername")
        log.info("refused a connection of %s: %s", peer[0] if isinstance(peer, tuple) else "unix", why)
        self._forget_timer()
        self._transport.abort()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
