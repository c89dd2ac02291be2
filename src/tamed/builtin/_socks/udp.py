"""UDP for a client of SOCKS 5 (RFC 1928, section 7): packets to any target and back."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from tamed.builtin._socks.messages import Datagram, RequestRefused, Target, encode_datagram, parse_datagram
from tamed.log.logger import own_logger
from tamed.net.address_limit import plain_address
from tamed.net.bind import Address
from tamed.net.framing import Malformed

__all__ = ["UdpAssociation"]

log = own_logger("tamed.builtin")

_MOST_TARGETS: Final = 256
"""Maximum number of targets to remember; answers from others are dropped."""

_MOST_LOOKUPS: Final = 8
"""Maximum number of concurrent look-ups; packets that need another one are dropped."""

_ANY: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 - the targets may be anywhere


class UdpAssociation:
    """The UDP relay of one client: a socket for its packets, and one of each address family for the targets.

    Packets are accepted from the client's own address only, and after its first packet from that port only.
    ``resolve`` returns a target's address, or raises RequestRefused. Only targets that the client has sent to
    may answer. Packets that are fragments, malformed, refused or too many are dropped silently, as RFC 1928
    requires.

    ``sent`` and ``received`` are bytes of payload. ``moved`` is called for each packet that is passed on.
    """

    def __init__(
        self, client: str, resolve: Callable[[Target], Awaitable[Address]], moved: Callable[[], None]
    ) -> None:
        self.sent = 0
        self.received = 0
        self._client_host = plain_address(client)
        self._client: tuple[Any, ...] | None = None
        self._resolve = resolve
        self._moved = moved
        self._addresses: dict[Target, Address] = {}
        self._contacted: dict[tuple[str, int], None] = {}
        self._lookups: set[asyncio.Task[None]] = set()
        self._inside = _UdpSocket(self._from_client)
        self._outside = {family: _UdpSocket(self._from_target) for family in _ANY}

    async def open(self, host: str) -> tuple[str, int]:
        """Listen for the client's packets on an IP address of this host; return it and the port."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = await self._inside.open(family, host)
        for family, anywhere in _ANY.items():
            with suppress(OSError):  # without IPv6, its targets are unreachable
                await self._outside[family].open(family, anywhere)
        return address

    def close(self) -> None:
        """Close the sockets; queued packets are lost, which UDP allows."""
        for lookup in self._lookups:
            lookup.cancel()
        for port in (self._inside, *self._outside.values()):
            port.close()

    def _from_client(self, data: bytes, source: tuple[Any, ...]) -> None:
        if self._client is None and plain_address(source[0]) == self._client_host:
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
            address = await self._resolve(target)
        except RequestRefused as error:
            log.info("socks refuses packets for %s: %s", target, error.why)
            return
        _remember(self._addresses, target, address)
        self._send(datagram, address)

    def _send(self, datagram: Datagram, address: Address) -> None:
        host, port, *_ = address.sockaddr
        _remember(self._contacted, (host, port), None)
        if self._outside[address.family].send(datagram.payload, address.sockaddr):
            self.sent += len(datagram.payload)
            self._moved()

    def _from_target(self, data: bytes, source: tuple[Any, ...]) -> None:
        host, port, *_ = source
        if self._client is None or (host, port) not in self._contacted:
            return
        if self._inside.send(encode_datagram(host, port, data), self._client):
            self.received += len(data)
            self._moved()


class _UdpSocket(asyncio.DatagramProtocol):
    """A bound UDP socket. Errors of single packets (ICMP) are ignored."""

    def __init__(self, on_packet: Callable[[bytes, tuple[Any, ...]], None]) -> None:
        self._on_packet = on_packet
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
        self._on_packet(data, addr)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False


def _remember(memory: dict[Any, Any], key: Any, value: Any) -> None:
    """Add to a bounded dictionary; the oldest key is dropped."""
    memory.pop(key, None)
    memory[key] = value
    if len(memory) > _MOST_TARGETS:
        del memory[next(iter(memory))]
