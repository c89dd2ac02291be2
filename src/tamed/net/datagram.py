"""A server for datagrams: UDP, and unix datagram sockets."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import ClassVar, Final

from tamed._os.descriptors import replace_with_null
from tamed._os.fork import own
from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.net._connection import Connection, filter_disconnects
from tamed.net.listen import Endpoints, Gate, ListeningService, current_environment
from tamed.service.service import require_function

__all__ = ["DatagramServer"]

log = own_logger("tamed.net")

_RETRY = 1.0  # seconds
_GRACE: Final = 5.0
"""Seconds until an aborted transport must be closed."""


class DatagramServer(ListeningService):
    """Serves each of its sockets with an asyncio datagram protocol from ``protocol_factory``.

    Packets are received when ``start`` has returned. ``stop`` sends the data that the protocols have written,
    until the drain deadline of the `ServerEnvironment`, and closes their transports; if the service is
    stopped only to be started again, packets wait in the kernel's queue. An endpoint with several addresses
    (``localhost``) has a protocol for each.

    It obeys the gate of its `ServerEnvironment`: protocols are created when the gate opens, and their
    transports are closed when it shuts. Then packets wait for the process that takes over the sockets.
    """

    socket_kind: ClassVar[socket.SocketKind] = socket.SOCK_DGRAM

    def __init__(
        self,
        endpoint: Endpoints,
        protocol_factory: Callable[[], asyncio.DatagramProtocol],
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(endpoint, name=name)
        require_function(self, "protocol factory", protocol_factory)
        self._protocol_factory = protocol_factory
        self._transports: dict[Connection, asyncio.DatagramTransport | None] = {}
        self._idle: asyncio.Future[None] | None = None
        self._gate = Gate()
        self._is_gated = False
        self._drain_seconds = 0.0
        self._opening: asyncio.Task[None] | None = None
        own(self)

    async def start(self) -> None:
        """Receive packets."""
        filter_disconnects()
        self._idle = None
        self._is_gated = False
        self._drain_seconds = current_environment().drain_timeout
        self.stop_timeout = self._drain_seconds + 2 * _GRACE
        self._gate = current_environment().gate
        self._gate.add(self)
        try:
            if not self._is_gated:
                await self._open_all()
        except BaseException:
            self._gate.remove(self)
            await self._close()
            raise
        for address in self.addresses:
            log.info("listening on %s", address)

    async def stop(self) -> None:
        """Send buffered data, and stop receiving."""
        self._gate.remove(self)
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if not self.restarting:
            self._close_listeners()
        await self._close()

    def disown(self) -> None:
        """In a forked child: leave the duplicated sockets to the parent; see `tamed._os.fork`."""
        replace_with_null(own_socket.fileno() for own_socket in self._transports)

    def pause_accepting(self) -> None:
        """Stop receiving until `resume_accepting` is called; buffered data is sent."""
        self._is_gated = True
        for transport in tuple(filter(None, self._transports.values())):
            transport.close()

    def resume_accepting(self) -> None:
        """Receive packets again."""
        self._is_gated = False
        self._opening = asyncio.get_running_loop().create_task(self._open_later())

    async def _open_later(self) -> None:
        """Open the transports, and retry while descriptors or memory are missing."""
        logged = ""
        waiting = [sock for listener in self.listeners for sock in listener.sockets]
        while waiting:
            try:
                await self._open(waiting[0])
                del waiting[0]
            except OSError as error:
                if reason(error) != logged:
                    logged = reason(error)
                    log.warning("%s cannot receive: %s; retrying", self.full_name, logged)
                await asyncio.sleep(_RETRY)
            except Exception:
                log.exception("%s cannot receive", self.full_name)
                return

    async def _open_all(self) -> None:
        for listener in self.listeners:
            for sock in listener.sockets:
                await self._open(sock)

    async def _open(self, sock: socket.socket) -> None:
        # Called here: if it raised in uvloop, that would leave a broken transport.
        protocol = self._protocol_factory()
        # A duplicate, because the transport closes its socket, and ours must survive a restart.
        own = Connection(sock.family, sock.type, sock.proto, os.dup(sock.fileno()), self._closed)
        self._transports[own] = None
        try:
            self._transports[own], _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: protocol, sock=own
            )
        except BaseException:
            del self._transports[own]
            own.close()
            raise

    def _closed(self, sock: Connection) -> None:
        if self._transports.pop(sock, None) is not None and self._idle is None and not self._is_gated:
            log.error("%s no longer receives on one of its sockets: its transport was closed", self.full_name)
        if self._idle is not None and not self._transports and not self._idle.done():
            self._idle.set_result(None)

    async def _close(self) -> None:
        """Close the transports; abort those that have not sent their data in time."""
        try:
            if not await self._all_closed(self._drain_seconds):
                log.warning("%s drops data not sent within %g s", self.full_name, self._drain_seconds)
        finally:
            for transport in tuple(filter(None, self._transports.values())):
                transport.abort()
        if not await self._all_closed(_GRACE):
            log.error("%s abandons transports that do not close", self.full_name)
            self._transports.clear()

    async def _all_closed(self, seconds: float) -> bool:
        """Close all transports, and wait for their end; return whether it came in time."""
        self._idle = asyncio.get_running_loop().create_future()
        for transport in tuple(filter(None, self._transports.values())):
            transport.close()
        if self._transports:
            await asyncio.wait([self._idle], timeout=seconds)
        return not self._transports
