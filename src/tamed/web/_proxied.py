"""Connections from proxies that send the client's address in a PROXY header."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, cast

from tamed.log.logger import own_logger
from tamed.net.framing import Incomplete, Malformed
from tamed.net.listen import current_environment
from tamed.net.proxy_header import Ends, IpEnds, Network, parse_header

__all__ = ["MakeConnection", "ProxiedConnection", "WebConnection"]

log = own_logger("web")

_LINGER: Final = 2.0
"""Seconds for a proxy to send the header during a drain."""


class WebConnection(Protocol):
    """The protocol of a connection with a known client."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_draining(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class MakeConnection(Protocol):
    """Creates the protocol of a connection; ``ends`` are those in the header."""

    def __call__(self, *, ends: IpEnds | None = None) -> WebConnection: ...


class ProxiedConnection(asyncio.Protocol):
    """Reads the PROXY header of a connection, and hands the connection over.

    Peers in ``networks`` must send a header within ``timeout`` seconds; data of other peers is never treated
    as a header.
    """

    def __init__(self, networks: Sequence[Network], make: MakeConnection, timeout: float) -> None:
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
        transport.set_protocol(cast(asyncio.Protocol, made))
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
