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
from tamed.net._connection import Connection
from tamed.net._leaving import tell_leaving_from_faults
from tamed.net.listen import Endpoints, Gate, ListeningService, current_environment

__all__ = ["DatagramServer"]

log = own_logger("tamed.net")

_RETRY = 1.0  # seconds
_GRACE: Final = 5.0
"""Seconds that a transport that was aborted has to come to its end."""


class DatagramServer(ListeningService):
    """Gives each of its sockets an asyncio datagram protocol that ``protocol_factory`` makes.

    Packets are received when ``start`` has returned. ``stop`` sends what the protocols have written, as far
    as it is taken before the drain deadline of the `ServerEnvironment`, and closes their transports; when it
    is stopped only to be started again, packets wait in the kernel's queue. An endpoint of several addresses
    (``localhost``) has a protocol for each.

    It heeds the gate of its `ServerEnvironment`: protocols are made when that opens, and their transports are
    closed when it shuts. Packets wait meanwhile for the process that takes over the sockets.
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
        tell_leaving_from_faults()
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
        """Send what was written, and receive no more."""
        self._gate.remove(self)
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if not self.restarting:
            self._close_listeners()
        await self._close()

    def disown(self) -> None:
        """Leave the duplicates of our sockets to the parent, in a forked child; see `tamed._os.fork`."""
        replace_with_null(own_socket.fileno() for own_socket in self._transports)

    def pause_accepting(self) -> None:
        """Receive no more until `resume_accepting` is called; what was written is sent."""
        self._is_gated = True
        for transport in tuple(filter(None, self._transports.values())):
            transport.close()

    def resume_accepting(self) -> None:
        """Receive packets again."""
        self._is_gated = False
        self._opening = asyncio.get_running_loop().create_task(self._open_later())

    async def _open_later(self) -> None:
        """Open what is not open, also if there are no descriptors or memory for that just now."""
        told = ""
        waiting = [sock for listener in self.listeners for sock in listener.sockets]
        while waiting:
            try:
                await self._open(waiting[0])
                del waiting[0]
            except OSError as error:
                if reason(error) != told:
                    told = reason(error)
                    log.warning("%s cannot receive: %s; it is tried again", self.full_name, told)
                await asyncio.sleep(_RETRY)
            except Exception:
                log.exception("%s cannot receive", self.full_name)
                return

    async def _open_all(self) -> None:
        for listener in self.listeners:
            for sock in listener.sockets:
                await self._open(sock)

    async def _open(self, sock: socket.socket) -> None:
        # Not called by uvloop, which would leave a broken transport behind if it raised.
        protocol = self._protocol_factory()
        # A duplicate, as the transport closes its socket, and ours must outlive a restart.
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
            log.error("%s receives no more on one of its sockets: its transport was closed", self.full_name)
        if self._idle is not None and not self._transports and not self._idle.done():
            self._idle.set_result(None)

    async def _close(self) -> None:
        """Close the transports; if there is no time for what they have to send, abort them."""
        try:
            if not await self._all_closed(self._drain_seconds):
                log.warning("%s drops what nobody has taken within %g s", self.full_name, self._drain_seconds)
        finally:
            for transport in tuple(filter(None, self._transports.values())):
                transport.abort()
        if not await self._all_closed(_GRACE):
            log.error("%s gives up on transports that do not close", self.full_name)
            self._transports.clear()

    async def _all_closed(self, seconds: float) -> bool:
        """Wait for the end of every transport that is being closed; return whether it came in time."""
        self._idle = asyncio.get_running_loop().create_future()
        for transport in tuple(filter(None, self._transports.values())):
            transport.close()
        if self._transports:
            await asyncio.wait([self._idle], timeout=seconds)
        return not self._transports
