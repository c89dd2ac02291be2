"""TLS handshakes that are not finished: how many there may be, for how long, and which one makes room.

Whoever connects costs a server something before it has shown anything of itself. So these are limited apart
from the connections that are served, as OpenSSH's MaxStartups and LoginGraceTime do, and clients that say
nothing cannot keep others out: while too many are unfinished, the oldest makes room, if it had time enough.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from tamed.log.logger import own_logger
from tamed.net._connection import TlsConnection
from tamed.net._quiet import QuietCount

__all__ = ["DEFAULT_MOST", "DEFAULT_TIMEOUT", "Handshakes"]

log = own_logger("tamed.net")

DEFAULT_MOST: Final = 500
"""How many handshakes of a server may be unfinished."""

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds for a handshake: it takes two or three round trips, and a second at most where one is slow."""

_SILENT: Final = 0.5
"""Seconds after which a client that has sent nothing makes room: a hello comes with the connection."""

_SLOW: Final = 2.0
"""Seconds after its first bytes after which an unfinished handshake makes room."""

_PAUSE: Final = 0.1
"""Seconds between two looks whether room is wanted, where one could make it."""


class Handshakes:
    """The unfinished handshakes of a server, on the running event loop.

    A client that has sent nothing yet has a descriptor and no more: what TLS needs, a quarter of a megabyte
    with asyncio's own loop, is made when its first bytes are there.

    ``changed`` is called whenever there is one more or one less.
    """

    def __init__(self, name: str, most: int, seconds: float, changed: Callable[[], object]) -> None:
        self._name = name
        self._most = most
        self._seconds = seconds
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        # When each has begun to be waited for, the oldest first.
        self._silent: dict[TlsConnection, float] = {}
        self._slow: dict[TlsConnection, float] = {}
        self._leaving: TlsConnection | None = None  # the last one that was aborted: it is closed a bit later
        self._timer: asyncio.TimerHandle | None = None
        self._aborted = QuietCount(self._tell, self._tell_more)

    @property
    def full(self) -> bool:
        """Whether no more may begin."""
        return len(self._silent) + len(self._slow) >= self._most

    async def open(
        self, connection: TlsConnection, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Open a connection as ``loop.connect_accepted_socket`` does; one that fails is closed.

        Raises OSError: TimeoutError if nothing was sent in time. This needs no task: see `TransportOpener`.
        """
        begun = self._silent[connection] = self._loop.time()
        self._changed()
        try:
            await self._first_bytes(connection)
            now = self._loop.time()
            del self._silent[connection]
            self._slow[connection] = now
            rest = max(begun + self._seconds - now, 0.001)
            return await self._loop.connect_accepted_socket(
                factory, connection, ssl=context, ssl_handshake_timeout=rest
            )
        finally:
            self._forget(connection)
            self._changed()

    def make_room(self, wanted: Callable[[], bool]) -> None:
        """Abort the oldest as soon as it had time enough and room is ``wanted``, until `end_making_room`."""
        if self._timer is None:
            self._look(wanted)

    def end_making_room(self) -> None:
        """Let all of them go on. May be called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Make no more room, and say what was not said yet. May be called again."""
        self.end_making_room()
        self._aborted.close()

    def _look(self, wanted: Callable[[], bool]) -> None:
        self._timer = None
        kinds = ((self._silent, _SILENT), (self._slow, _SLOW))
        dues = [(next(iter(kind.values())) + seconds, kind) for kind, seconds in kinds if kind]
        if not dues:
            return
        due, kind = min(dues, key=lambda one: one[0])
        now = self._loop.time()
        makes_room = self._leaving is not None and self._leaving.fileno() >= 0
        if due <= now and not makes_room and wanted():
            self._abort(next(iter(kind)))
        else:
            self._timer = self._loop.call_at(max(due, now + _PAUSE), self._look, wanted)

    def _abort(self, connection: TlsConnection) -> None:
        self._forget(connection)
        self._leaving = connection
        connection.abort()
        self._aborted.add(connection.peer)

    def _forget(self, connection: TlsConnection) -> None:
        self._silent.pop(connection, None)
        self._slow.pop(connection, None)

    async def _first_bytes(self, connection: TlsConnection) -> None:
        """Wait until the client has sent something. Raises OSError if it leaves, or takes too long."""
        heard: asyncio.Future[None] = self._loop.create_future()
        fd = connection.fileno()
        self._loop.add_reader(fd, _resolve, heard)
        timer = self._loop.call_later(self._seconds, self._give_up, heard)
        try:
            try:
                await heard
            finally:
                timer.cancel()
                self._loop.remove_reader(fd)
            _require_bytes(connection)
        except BaseException:
            connection.drop()
            raise

    def _give_up(self, heard: "asyncio.Future[None]") -> None:
        if not heard.done():
            heard.set_exception(TimeoutError(f"it sent nothing for {self._seconds:g} s"))

    def _tell(self, peer: Any) -> None:
        text = "%s has aborted the unfinished TLS handshake of %s to make room for others"
        log.warning(text, self._name, peer)

    def _tell_more(self, count: int) -> None:
        log.warning("%s has aborted %d more unfinished TLS handshakes", self._name, count)


def _resolve(heard: "asyncio.Future[None]") -> None:
    if not heard.done():
        heard.set_result(None)


def _require_bytes(connection: TlsConnection) -> None:
    """Raise ConnectionResetError if a client has left without a word."""
    if not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
        raise ConnectionResetError("it has sent nothing")
