"""TLS handshakes that are not finished: how many there may be, for how long, and which one makes room.

Whoever connects costs a server something before it has shown anything of itself. So these are limited apart
from the connections that are served, as OpenSSH's MaxStartups, PerSourceMaxStartups and LoginGraceTime do,
and clients that say nothing cannot keep others out:

- A client that has not sent its whole hello costs a descriptor and no more, and has no place yet. Of too many
  of those the oldest goes, of the same address (a /64 network of IPv6) if there is one.
- An address that has many handshakes loses its oldest to a client of another address at once, however young
  that is. So one host cannot keep another waiting.
- Where nobody has many, clients wait for a place in a queue, and addresses take turns in it. Meanwhile the
  oldest handshake makes room, if it had time enough. So nobody loses a connection when many come at once.
- While the queue is full too, an address that has clients in it loses the oldest of those.
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
"""How many handshakes of a server may be unfinished."""

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds for a handshake: it takes two or three round trips, and a second at most where one is slow."""

_SILENT: Final = 0.5
"""Seconds after which a client without its hello makes room: that comes with the connection."""

_SLOW: Final = 2.0
"""Seconds after its hello after which an unfinished handshake makes room."""

_MANY: Final = 10
"""How many unfinished handshakes an address has at most that loses none of them to another address."""

_HEADER: Final = 5
_HANDSHAKE: Final = 22
_LONGEST: Final = _HEADER + (1 << 14)
"""The header of a record of TLS, its first byte, and the bytes of one (RFC 8446, 5.1)."""

_PAUSE: Final = 0.1
"""Seconds between two looks whether room is wanted, where one could make it."""


class Handshakes:
    """The unfinished handshakes of a server, on the running event loop: ``most`` of them, ``seconds`` each.

    What TLS needs, a quarter of a megabyte with asyncio's own loop, is made for a client when its hello is
    there, and a place is free. For that ``queue`` clients can wait, and as many more for the hello.

    ``changed`` is called whenever there is one more or one less. ``wanted`` tells whether somebody would be
    accepted if one made room.
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
        # When each has begun to be waited for, the oldest first.
        self._silent: dict[TlsConnection, float] = {}
        self._slow: dict[TlsConnection, float] = {}
        self._networks: dict[TlsConnection, str] = {}
        self._most_silent = most + queue
        self._of_network: Counter[str] = Counter()  # of those that are slow
        self._queue = _Queue(queue)
        self._leaving: TlsConnection | None = None  # the last one that was aborted: it is closed a bit later
        self._timer: asyncio.TimerHandle | None = None
        self._aborted = LogLimiter(self._log_first, self._log_more)

    @property
    def full(self) -> bool:
        """Whether no more may be accepted."""
        return not self._queue.most and len(self._silent) + len(self._slow) >= self._most

    async def open(
        self, connection: TlsConnection, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Open a connection as ``loop.connect_accepted_socket`` does; one that fails is closed.

        Raises OSError: TimeoutError if its hello is not there in time. Needs no task: see `TransportOpener`.
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
        """Abort the oldest as soon as it had time enough and room is wanted, until `end_making_room`."""
        if self._timer is None:
            self._look()

    def end_making_room(self) -> None:
        """Let all of them go on, unless others wait for their places. May be called again."""
        if self._timer is not None and not self._queue:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Say what was not said yet. May be called again."""
        self.end_making_room()
        self._aborted.close()

    async def _admitted(self, connection: TlsConnection, deadline: float) -> None:
        """Wait until a client has said hello and has a place; it is closed if that comes to nothing."""
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
        """Expect a hello; have the oldest that was expected go, if there are too many."""
        if len(self._silent) >= self._most_silent:
            theirs = (each for each in self._silent if self._networks[each] == network)
            self._abort(next(theirs, None) or next(iter(self._silent)))
        self._silent[connection] = self._loop.time()
        self._networks[connection] = network
        self._changed()

    async def _place(self, connection: TlsConnection, network: str, deadline: float) -> None:
        """Give a client whose hello is there a place, or have it wait for one."""
        if len(self._slow) < self._most or self._take_place_of_another(network) or not self._queue.most:
            self._begin(connection, network)
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        if (another := self._queue.add(connection, network, turn)) is not None:
            self._abort(another)
        why = f"there was no room for it for {self._seconds:g} s"
        timer = self._loop.call_at(deadline, _fail, turn, why)
        self.make_room()
        try:
            await turn
        finally:
            timer.cancel()
            self._queue.remove(connection, network)

    def _take_place_of_another(self, network: str) -> bool:
        """Abort the oldest of the address that has the most, if that has many and much more than this one."""
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
        """Give places that are free to those who wait."""
        while self._queue and len(self._slow) < self._most:
            connection, network, turn = self._queue.next()
            self._begin(connection, network)
            turn.set_result(None)
        if self._queue:
            self.make_room()

    def _look(self) -> None:
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
            self._timer = self._loop.call_at(max(due, now + _PAUSE), self._look)

    def _abort(self, connection: TlsConnection) -> None:
        self._forget(connection)
        self._leaving = connection
        self._aborted.add(connection.peer)
        connection.abort()

    async def _whole_hello(self, connection: TlsConnection, deadline: float) -> None:
        """Wait until the first record of a client is there, or it has sent what is none.

        Raises OSError if it leaves, or takes too long. The kernel wakes us when enough is there, not before.
        """
        wanted = _HEADER
        while wanted:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
            await self._readable(connection, deadline)
            wanted = _missing(connection, wanted)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        if self._silent.pop(connection, None) is None:
            raise ConnectionAbortedError("it has made room for another")

    async def _readable(self, connection: TlsConnection, deadline: float) -> None:
        heard: asyncio.Future[None] = self._loop.create_future()
        fd = connection.fileno()
        self._loop.add_reader(fd, _resolve, heard)
        why = f"it has not said hello for {self._seconds:g} s"
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
    """Connections that wait for a place, at most so many; networks take turns."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._count = 0
        self._waiting: dict[str, dict[TlsConnection, asyncio.Future[None]]] = {}

    def __bool__(self) -> bool:
        return self._count > 0

    def add(
        self, connection: TlsConnection, network: str, turn: "asyncio.Future[None]"
    ) -> TlsConnection | None:
        """Have a connection wait; return the one that has lost its place to it, if there is no more room.

        That is the oldest of the same network, or of the one that has the most.
        """
        another = None
        if self._count >= self.most:
            loser = network if network in self._waiting else max(self._waiting, key=self._length)
            another = next(iter(self._waiting[loser]))
            self.remove(another, loser)
        self._waiting.setdefault(network, {})[connection] = turn
        self._count += 1
        return another

    def remove(self, connection: TlsConnection, network: str) -> None:
        """Forget a connection, if it is here."""
        waiting = self._waiting.get(network, {})
        if waiting.pop(connection, None) is not None:
            self._count -= 1
            if not waiting:
                del self._waiting[network]

    def next(self) -> "tuple[TlsConnection, str, asyncio.Future[None]]":
        """Take the one whose turn it is: the oldest of its network, which comes last from now on."""
        network, waiting = next(iter(self._waiting.items()))
        connection, turn = next(iter(waiting.items()))
        self.remove(connection, network)
        if waiting:
            self._waiting[network] = self._waiting.pop(network)
        return connection, network, turn

    def _length(self, network: str) -> int:
        return len(self._waiting[network])


def _resolve(heard: "asyncio.Future[None]") -> None:
    if not heard.done():
        heard.set_result(None)


def _fail(awaited: "asyncio.Future[None]", why: str) -> None:
    if not awaited.done():
        awaited.set_exception(TimeoutError(why))


def _missing(connection: TlsConnection, wanted: int) -> int:
    """Return how many bytes there are to be for a whole record; 0 if they are there, or it is none.

    Raises ConnectionResetError if there are fewer than were waited for: the client has left.
    """
    head = connection.recv(_LONGEST, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    if head and head[0] != _HANDSHAKE:
        return 0
    if len(head) < wanted:
        raise ConnectionResetError("it has left before its hello" if head else "it has sent nothing")
    whole = _HEADER + int.from_bytes(head[3:5])
    return whole if len(head) < whole <= _LONGEST else 0
