"""UDP for a client of SOCKS 5 (RFC 1928, section 7): packets to any target and back, through one relay."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from tamed.builtin._dial import Address
from tamed.builtin._framing import Malformed
from tamed.builtin._socks._messages import Datagram, Target, encode_datagram, parse_datagram
from tamed.builtin._socks._reach import Unreached, allowed_addresses
from tamed.builtin._socks._rules import TargetRules
from tamed.log.logger import own_logger

__all__ = ["Association"]

log = own_logger("tamed.builtin")

_MOST_TARGETS: Final = 256
"""How many targets are remembered; the answers of others are dropped."""

_MOST_LOOKUPS: Final = 8
"""How many names are looked up at a time; packets that need another one are dropped."""

_ANY: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - the targets may be anywhere


class Association:
    """The relay of one client: a socket for the client's packets, and one of each family for the targets.

    Only the client's own address is heard, and once it has sent a packet only that port. Targets are judged
    by the rules, each packet by itself. Only targets that the client has sent to may answer. Packets that
    are fragments, malformed, refused or too many are dropped without a word, as RFC 1928 has it.

    ``sent`` and ``received`` are bytes of payload. ``moved`` is called for each packet that goes through.
    """

    def __init__(
        self, client: str, rules: TargetRules, lookup_timeout: float, moved: Callable[[], None]
    ) -> None:
        self.sent = 0
        self.received = 0
        self._client_host = _plain(client)
        self._client: tuple[Any, ...] | None = None
        self._rules = rules
        self._lookup_timeout = lookup_timeout
        self._moved = moved
        self._addresses: dict[Target, Address] = {}
        self._heard: dict[tuple[str, int], None] = {}
        self._lookups: set[asyncio.Task[None]] = set()
        self._inside = _Port(self._from_client)
        self._outside = {family: _Port(self._from_target) for family in _ANY}

    async def open(self, host: str) -> tuple[str, int]:
        """Listen for the client's packets on an IP address of ours; return it with the port."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = await self._inside.open(family, host)
        for family, anywhere in _ANY.items():
            with suppress(OSError):  # a machine without IPv6, whose targets are unreachable then
                await self._outside[family].open(family, anywhere)
        return address

    def close(self) -> None:
        """Close the sockets; what is on its way is lost, as UDP may be."""
        for lookup in self._lookups:
            lookup.cancel()
        for port in (self._inside, *self._outside.values()):
            port.close()

    def _from_client(self, data: bytes, source: tuple[Any, ...]) -> None:
        if self._client is None and _plain(source[0]) == self._client_host:
            self._client = source
        if source != self._client:
            return
        try:
            datagram = parse_datagram(data)
        except Malformed:
            return
        if datagram.fragment:
            return
        known = self._addresses.get(datagram.target)
        if known is not None:
            self._send(datagram, known)
        elif len(self._lookups) < _MOST_LOOKUPS:
            lookup = asyncio.get_running_loop().create_task(self._look_up_and_send(datagram))
            self._lookups.add(lookup)
            lookup.add_done_callback(self._lookups.discard)

    async def _look_up_and_send(self, datagram: Datagram) -> None:
        target = datagram.target
        try:
            found = await allowed_addresses(target, self._rules, self._lookup_timeout, socket.SOCK_DGRAM)
        except Unreached as error:
            log.info("socks refuses packets for %s: %s", target, error.why)
            return
        _remember(self._addresses, target, found[0])
        self._send(datagram, found[0])

    def _send(self, datagram: Datagram, address: Address) -> None:
        host, port, *_ = address.sockaddr
        _remember(self._heard, (host, port), None)
        if self._outside[address.family].send(datagram.payload, address.sockaddr):
            self.sent += len(datagram.payload)
            self._moved()

    def _from_target(self, data: bytes, source: tuple[Any, ...]) -> None:
        host, port, *_ = source
        if self._client is None or (host, port) not in self._heard:
            return
        if self._inside.send(encode_datagram(host, port, data), self._client):
            self.received += len(data)
            self._moved()


class _Port(asyncio.DatagramProtocol):
    """A socket of ours. Errors of single packets (ICMP) are nobody's concern."""

    def __init__(self, take: Callable[[bytes, tuple[Any, ...]], None]) -> None:
        self._take = take
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False

    async def open(self, family: int, host: str) -> tuple[str, int]:
        """Bind it to a free port of an IP address; return both."""
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, 0))
            address: tuple[Any, ...] = sock.getsockname()
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise
        return address[0], address[1]

    def send(self, data: bytes, to: tuple[Any, ...]) -> bool:
        """Send a packet, or drop it if too many wait to be sent; return whether it was sent."""
        if self._transport is None or self._full:
            return False
        self._transport.sendto(data, to)
        return True

    def close(self) -> None:
        """Close the socket at once."""
        if self._transport is not None:
            self._transport.abort()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._take(data, addr)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False


def _remember(memory: dict[Any, Any], key: Any, value: Any) -> None:
    """Put something at the end of a dictionary that has an end: the oldest is forgotten."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > _MOST_TARGETS:
        del memory[next(iter(memory))]


def _plain(host: str) -> str:
    """Return an IP address without its zone, IPv4 as such also when it is mapped."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
