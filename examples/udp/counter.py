"""Counts names that come over UDP, a packet each, and confirms each packet with the count so far.

A packet has a number, because its sender sends it again if no confirmation comes: one that comes twice
counts once.
"""

import asyncio
from collections import Counter, OrderedDict
from typing import Any, cast

from tamed import Application, DatagramServer

REMEMBERED = 10_000  # confirmations that are kept for packets that come again


class Counting(asyncio.DatagramProtocol):
    """Answers packets such as ``17 apples``."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.confirmed: OrderedDict[tuple[Any, str], bytes] = OrderedDict()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        number, _, name = data.decode(errors="replace").strip().partition(" ")
        if not number.isdecimal() or not name:
            return  # an answer to rubbish would let a forged address make us send to somebody else
        self.transport.sendto(self.confirmation(address, number, name), address)

    def confirmation(self, address: Any, number: str, name: str) -> bytes:
        if (address, number) not in self.confirmed:
            self.counts[name] += 1
            self.confirmed[address, number] = f"{number} {name}: {self.counts[name]}\n".encode()
            if len(self.confirmed) > REMEMBERED:
                self.confirmed.popitem(last=False)
        return self.confirmed[address, number]


application = Application("counter", DatagramServer("127.0.0.1:10000", Counting, name="udp"))
