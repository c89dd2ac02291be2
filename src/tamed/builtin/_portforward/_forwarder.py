"""The forwarder: from an accepted connection to the line in the log."""

import asyncio
import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tamed.builtin._framing import Malformed, read_message
from tamed.builtin._portforward._balancer import Balancer
from tamed.builtin._portforward._network import Network
from tamed.builtin._portforward._proxy_header import Ends, encode_v1, encode_v2, ends_of, parse_header
from tamed.builtin._portforward._upstream import Upstream
from tamed.builtin._relay import Patience, Relay, Stream
from tamed.errors import Unavailable, reason
from tamed.log.logger import own_logger
from tamed.net.endpoint import address_text
from tamed.service.service import Service

__all__ = ["Forwarder", "ProxyHeader"]

log = own_logger("tamed.builtin")


class ProxyHeader(enum.Enum):
    """Which PROXY header the upstreams are sent."""

    NONE = "none"
    V1 = "v1"
    V2 = "v2"

    def encode(self, ends: Ends | None) -> bytes:
        """Write it; without ends it is one of the proxy's own connections."""
        match self:
            case ProxyHeader.NONE:
                return b""
            case ProxyHeader.V1:
                return encode_v1(ends)
            case ProxyHeader.V2:
                return encode_v2(ends)


@dataclass(frozen=True, slots=True)
class _Visitor:
    """A connection that was accepted: both its ends, and who it is for the log."""

    ends: Ends | None
    text: str


class Forwarder(Service):
    """Forwards any connection to one of several upstreams, by `serve`.

    Peers in the networks of ``header_from`` must begin with a PROXY header, which is believed, within
    ``header_timeout`` seconds. ``header_to`` is what the upstreams are sent. Each connection is one line in
    the log, with its byte counts.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        patience: Patience,
        *,
        header_from: Sequence[Network] = (),
        header_timeout: float = 10.0,
        header_to: ProxyHeader = ProxyHeader.NONE,
        name: str = "forwarder",
    ) -> None:
        super().__init__(name)
        self._balancer = Balancer(upstreams)
        self._patience = patience
        self._header_from = tuple(header_from)
        self._header_timeout = header_timeout
        self._header_to = header_to

    @property
    def summary(self) -> str:
        """Where it forwards to."""
        return "to " + ", ".join(str(upstream.endpoint) for upstream in self._balancer.upstreams)

    async def prepare(self) -> None:
        """Read what TLS needs, while that may be read."""
        for upstream in self._balancer.upstreams:
            upstream.load()

    async def check(self) -> None:
        """Take note of which upstreams can be connected to."""
        header = self._header_to.encode(None)
        await asyncio.gather(*(upstream.check(header) for upstream in self._balancer.upstreams))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        client = Stream(reader, writer)
        visitor = await self._visitor(client)
        if visitor is None:
            writer.transport.abort()
            return
        begun = time.monotonic()
        try:
            async with self._balancer.connection(self._header_to.encode(visitor.ends)) as (upstream, target):
                relay = Relay(client, target, self._patience)
                ending = "the server stopped"
                try:
                    ending = await relay.run()
                finally:
                    _log_end(f"{visitor.text} to {upstream.endpoint}", relay, begun, ending)
        except Unavailable as error:
            log.info("%s is not served: %s", visitor.text, error)
            writer.transport.abort()

    async def _visitor(self, client: Stream) -> _Visitor | None:
        """Find out who a client is; None for one that should have said so and did not."""
        peer, own = (client.writer.get_extra_info(name) for name in ("peername", "sockname"))
        text, ends = address_text(peer), ends_of(peer, own)
        if not any(network.has(peer) for network in self._header_from):
            return _Visitor(ends, text)
        try:
            async with asyncio.timeout(self._header_timeout):
                told = await read_message(client.reader, parse_header)
        except TimeoutError:
            log.info("%s sent no PROXY header within %g s", text, self._header_timeout)
        except Malformed as error:
            log.warning("%s is not served: %s", text, error)
        except (OSError, EOFError) as error:
            log.debug("%s left before its PROXY header: %s", text, reason(error))
        else:
            return _Visitor(ends, text) if told is None else _Visitor(told, f"{told} by {text}")
        return None


def _log_end(what: str, relay: Relay, begun: float, ending: str) -> None:
    seconds = time.monotonic() - begun
    log.info("%s: %d bytes sent, %d received, %.1f s, %s", what, relay.sent, relay.received, seconds, ending)
