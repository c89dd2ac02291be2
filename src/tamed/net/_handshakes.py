"""Unfinished TLS handshakes: limits of their number and duration, and which one is aborted to make room.

A client costs a server resources before it has authenticated. So handshakes are limited separately from the
connections that are served, as with OpenSSH's MaxStartups, PerSourceMaxStartups and LoginGraceTime, and
silent clients cannot keep others out:

- A client that has not sent its whole hello costs one descriptor only, and does not count as a handshake yet.
  If there are too many of those, the oldest is aborted, of the same address (a /64 network of IPv6) if it has
  one.
- An address with many handshakes loses its oldest to a client of another address at once, regardless of its
  age. So one host cannot keep another waiting.
- If no address has many, clients wait in a queue, in which addresses take turns. Meanwhile the oldest
  handshake that has had its time is aborted. So no client loses a connection when many connect at once.
- If the queue is full too, an address with clients in it loses the oldest of those.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from tamed.log.logger import own_logger
from tamed.net._connection import TlsConnection
from tamed.net.address_limit import LogLimiter, client_network

__all__ = ["DEFAULT_MOST", "DEFAULT_TIMEOUT", "Handshakes"]

log = own_logger("tamed.net")

DEFAULT_MOST: Final = 500
"""The maximum number of unfinished handshakes of a server."""

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds for a handshake: it takes two or three round trips, and at most a second on a slow network."""

_SILENT: Final = 0.5
"""Seconds after which a client without a hello may be aborted: clients send it with the connection."""

_SLOW: Final = 2.0
"""Seconds after the hello after which an unfinished handshake may be aborted."""

_MANY: Final = 10
"""An address with at most this many unfinished handshakes loses none of them to another address."""

_HEADER: Final = 5
_HANDSHAKE: Final = 22
_LONGEST: Final = _HEADER + (1 << 14)
"""The header of a record of TLS, its first byte, and the bytes of one (RFC 8446, 5.1)."""

_PAUSE: Final = 0.1
"""Seconds between two checks whether room is needed, while a handshake could be aborted."""


class Handshakes:
    """The unfinished handshakes of a server, on the running event loop: ``most`` of them, ``seconds`` each.

    The buffers of TLS, a quarter of a megabyte with asyncio's own loop, are allocated when a client has sent
    its hello and one of the ``most`` places is free. ``queue`` clients can wait for a place, and the server
    waits for the hello of as many as both numbers together.

    ``changed`` is called when their number changes. ``wanted`` returns whether another client would be
    accepted if one were aborted.
    """

    def __init__(
        self,
        name: str,
        most: int,
        seconds: float,
        *,
        queue: int,
        changed: Callable[[], object],
        wanted: Callable[[], bool],
    ) -> None:
        self._name = name
        self._most = most
        self._seconds = seconds
        self._changed = changed
        self._wanted = wanted
        self._loop = asyncio.get_running_loop()
        # The times when the server began to wait for them, the oldest first.
        self._silent: dict[TlsConnection, float] = {}
        self._slow: dict[TlsConnection, float] = {}
        self._networks: dict[TlsConnection, str] = {}
        self._most_silent = most + queue
        self._of_network: Counter[str] = Counter()  # the number of those in `_slow`
        self._queue = _Queue(queue)
        self._leaving: TlsConnection | None = None  # the last one that was aborted: it closes a little later
        self._timer: asyncio.TimerHandle | None = None
        self._aborted = LogLimiter(self._log_first, self._log_more)

    @property
    def full(self) -> bool:
        """Whether no more connections may be accepted."""
        return not self._queue.most and len(self._silent) + len(self._slow) >= self._most

    async def open(
        self, connection: TlsConnection, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Open a connection as ``loop.connect_accepted_socket`` does; close it if that fails.

        Raises OSError: TimeoutError if the hello is late. Needs no task: see `TransportOpener`.
        """
        deadline = self._loop.time() + self._seconds
        try:
            await self._admitted(connection, deadline)
            rest = max(deadline - self._loop.time(), 0.001)
            return await self._loop.connect_accepted_socket(
                factory, connection, ssl=context, ssl_handshake_timeout=rest
            )
        finally:
            self._forget(connection)
            self._admit()
            self._changed()

    def make_room(self) -> None:
        """Abort the oldest when it has had its time and room is wanted, until `end_making_room`."""
        if self._timer is None:
            self._check()

    def end_making_room(self) -> None:
        """Stop aborting, unless clients wait in the queue. Idempotent."""
        if self._timer is not None and not self._queue:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Log the aborts that were only counted so far. Idempotent."""
        self.end_making_room()
        self._aborted.close()

    async def _admitted(self, connection: TlsConnection, deadline: float) -> None:
        """Wait until a client has sent its hello and has a place; close it if that fails."""
        address = connection.address
        network = client_network(address[0]) if isinstance(address, tuple) else ""
        try:
            self._expect(connection, network)
            await self._whole_hello(connection, deadline)
            await self._place(connection, network, deadline)
        except BaseException:
            connection.close()
            raise

    def _expect(self, connection: TlsConnection, network: str) -> None:
        """Register a client without a hello; abort the oldest one if there are too many."""
        if len(self._silent) >= self._most_silent:
            theirs = (each for each in self._silent if self._networks[each] == network)
            self._abort(next(theirs, None) or next(iter(self._silent)))
        self._silent[connection] = self._loop.time()
        self._networks[connection] = network
        self._changed()

    async def _place(self, connection: TlsConnection, network: str, deadline: float) -> None:
        """Give a client that has sent its hello a place, or make it wait for one."""
        if len(self._slow) < self._most or self._take_place_of_another(network) or not self._queue.most:
            self._begin(connection, network)
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        if (another := self._queue.add(connection, network, turn)) is not None:
            self._abort(another)
        why = f"no place was free for {self._seconds:g} s"
        timer = self._loop.call_at(deadline, _fail, turn, why)
        self.make_room()
        try:
            await turn
        finally:
            timer.cancel()
            self._queue.remove(connection, network)

    def _take_place_of_another(self, network: str) -> bool:
        """Abort the oldest of the address with the most, if it has many and far more than this one."""
        other, count = max(self._of_network.items(), key=lambda item: item[1])
        if count <= max(_MANY, 2 * self._of_network[network]):
            return False
        self._abort(next(each for each in self._slow if self._networks[each] == other))
        return True

    def _begin(self, connection: TlsConnection, network: str) -> None:
        self._slow[connection] = self._loop.time()
        self._of_network[network] += 1

    def _forget(self, connection: TlsConnection) -> None:
        network = self._networks.pop(connection, "")
        self._silent.pop(connection, None)
        if self._slow.pop(connection, None) is not None:
            self._of_network[network] -= 1
            if not self._of_network[network]:
                del self._of_network[network]

    def _admit(self) -> None:
        """Give free places to waiting clients."""
        while self._queue and len(self._slow) < self._most:
            connection, network, turn = self._queue.next()
            if not turn.done():  # it is, if its deadline has passed in this iteration of the loop
                self._begin(connection, network)
                turn.set_result(None)
        if self._queue:
            self.make_room()

    def _check(self) -> None:
        self._timer = None
        wanted = self._wanted()
        kinds = ((self._slow, _SLOW), *[(self._silent, _SILENT)] * (wanted or not self._queue))
        dues = [(next(iter(kind.values())) + seconds, kind) for kind, seconds in kinds if kind]
        if not dues:
            return
        due, kind = min(dues, key=lambda one: one[0])
        now = self._loop.time()
        makes_room = self._leaving is not None and self._leaving.fileno() >= 0
        if due <= now and not makes_room and (wanted or self._queue):
            self._abort(next(iter(kind)))
        else:
            self._timer = self._loop.call_at(max(due, now + _PAUSE), self._check)

    def _abort(self, connection: TlsConnection) -> None:
        self._forget(connection)
        self._leaving = connection
        self._aborted.add(connection.peer)
        connection.abort()

    async def _whole_hello(self, connection: TlsConnection, deadline: float) -> None:
        """Wait until a client has sent its first record, or data that is not a TLS record.

        Raises OSError if it disconnects, or is too slow. The kernel wakes us only when enough bytes have
        come.
        """
        wanted = _HEADER
        while wanted:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
            await self._readable(connection, deadline)
            wanted = _missing(connection, wanted)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        if self._silent.pop(connection, None) is None:
            raise ConnectionAbortedError("it was aborted to make room for another")

    async def _readable(self, connection: TlsConnection, deadline: float) -> None:
        heard: asyncio.Future[None] = self._loop.create_future()
        fd = connection.fileno()
        self._loop.add_reader(fd, _resolve, heard)
        why = f"it sent no hello within {self._seconds:g} s"
        timer = self._loop.call_at(deadline, _fail, heard, why)
        try:
            await heard
        finally:
            timer.cancel()
            self._loop.remove_reader(fd)

    def _log_first(self, peer: Any) -> None:
        text = "%s has aborted the unfinished TLS handshake of %s to make room for others"
        log.warning(text, self._name, peer)

    def _log_more(self, count: int) -> None:
        log.warning("%s has aborted %d more unfinished TLS handshakes", self._name, count)


class _Queue:
    """Connections that wait for a place, ``most`` at most; networks take turns."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._count = 0
        self._waiting: dict[str, dict[TlsConnection, asyncio.Future[None]]] = {}

    def __bool__(self) -> bool:
        return self._count > 0

    def add(
        self, connection: TlsConnection, network: str, turn: "asyncio.Future[None]"
    ) -> TlsConnection | None:
        """Add a connection; if the queue is full, remove another one and return it.

        That is the oldest of the same network, or of the network with the most.
        """
        another = None
        if self._count >= self.most:
            loser = (
                network
                if network in self._waiting
                else max(self._waiting, key=lambda each: len(self._waiting[each]))
            )
            another = next(iter(self._waiting[loser]))
            self.remove(another, loser)
        self._waiting.setdefault(network, {})[connection] = turn
        self._count += 1
        return another

    def remove(self, connection: TlsConnection, network: str) -> None:
        """Remove a connection, if it is in the queue."""
        waiting = self._waiting.get(network, {})
        if waiting.pop(connection, None) is not None:
            self._count -= 1
            if not waiting:
                del self._waiting[network]

    def next(self) -> "tuple[TlsConnection, str, asyncio.Future[None]]":
        """Remove and return the next one: the oldest of its network, whose turn comes last after that."""
        network, waiting = next(iter(self._waiting.items()))
        connection, turn = next(iter(waiting.items()))
        self.remove(connection, network)
        if waiting:
            self._waiting[network] = self._waiting.pop(network)
        return connection, network, turn


def _resolve(heard: "asyncio.Future[None]") -> None:
    if not heard.done():
        heard.set_result(None)


def _fail(awaited: "asyncio.Future[None]", why: str) -> None:
    if not awaited.done():
        awaited.set_exception(TimeoutError(why))


def _missing(connection: TlsConnection, wanted: int) -> int:
    """Return the bytes to wait for until the record is whole; 0 if it is, or if it is not a TLS record.

    Raises ConnectionResetError if fewer than ``wanted`` have come: the client has disconnected.
    """
    head = connection.recv(_LONGEST, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    if head and head[0] != _HANDSHAKE:
        return 0
    if len(head) < wanted:
        raise ConnectionResetError("it disconnected before its hello" if head else "it sent nothing")
    whole = _HEADER + int.from_bytes(head[3:5])
    return whole if len(head) < whole <= _LONGEST else 0
