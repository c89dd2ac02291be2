"""The first bytes of a connection: a PROXY header, and then the choice of the version of HTTP."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

from tamed.log.logger import own_logger
from tamed.net.framing import Incomplete, Malformed
from tamed.net.listen import current_environment
from tamed.net.proxy_header import Ends, IpEnds, Network, parse_header
from tamed.web._http1 import HttpConnection

__all__ = ["ALPN", "PREFACE", "Negotiation", "ProxiedConnection"]

log = own_logger("web")

ALPN: Final = ("h2", "http/1.1")
"""The protocols that a server of both offers over TLS (RFC 7301), the best first."""

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes from a client of HTTP/2 (RFC 9113, 3.4)."""

_LINGER: Final = 2.0
"""Seconds for a proxy to send the header during a drain."""


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
        self._forget_timer()

    def _hand_over(self, ends: Ends | None) -> None:
        self._forget_timer()
        made = self._make(ends=ends if isinstance(ends, IpEnds) else None)
        _hand_over(self._transport, made, self._begun[self._size :], is_draining=self._is_draining)

    def _refuse(self, why: str) -> None:
        peer = self._transport.get_extra_info("peername")
        log.info("refused a connection of %s: %s", peer[0] if isinstance(peer, tuple) else "unix", why)
        self._forget_timer()
        self._transport.abort()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Negotiation(asyncio.Protocol):
    """Hands a connection over to the client's protocol.

    Over TLS it was negotiated. In clear text a client uses HTTP/2 by prior knowledge, and begins with its
    preface (RFC 9113, 3.3). Until that is known, the connection behaves as HTTP/1.1, with its deadlines and
    its end during a drain.
    """

    def __init__(
        self, http1: Callable[..., HttpConnection], http2: Callable[..., Any], *, ends: IpEnds | None = None
    ) -> None:
        self._make_http2 = partial(http2, ends=ends)
        self._http1 = http1(ends=ends)
        self._begun = b""
        self._is_draining = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Choose the negotiated protocol, or wait for the first bytes."""
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._become_http2()
            return
        self._http1.connection_made(transport)
        if tls is not None:
            self._transport.set_protocol(self._http1)

    def data_received(self, data: bytes) -> None:
        """Choose a protocol by the first bytes."""
        self._begun += data
        if self._begun.startswith(PREFACE):
            self._http1.connection_lost(None)  # releases it: it gets no connection
            self._become_http2()
        elif not PREFACE.startswith(self._begun):
            self._transport.set_protocol(self._http1)
            self._http1.data_received(self._begun)

    def connection_draining(self) -> None:
        """Wait briefly for the client's first request; the server calls this when it begins to stop."""
        self._is_draining = True
        self._http1.connection_draining()

    def connection_lost(self, exc: Exception | None) -> None:
        self._http1.connection_lost(exc)

    def _become_http2(self) -> None:
        _hand_over(self._transport, self._make_http2(), self._begun, is_draining=self._is_draining)


def _hand_over(transport: asyncio.Transport, made: Any, begun: bytes, *, is_draining: bool) -> None:
    """Replace the protocol of a connection, which has received ``begun``."""
    transport.set_protocol(made)
    made.connection_made(transport)
    if is_draining:
        made.connection_draining()
    if begun:
        cast(asyncio.Protocol, transport.get_protocol()).data_received(begun)
