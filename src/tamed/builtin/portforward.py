"""Forwarding of connections to other servers, as a plugin.

The server accepts a client's connection, reads its PROXY header if it must have one, connects to an upstream,
and relays bytes to the end, which it logs in one line.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from tamed.builtin._relay import Relay, Stream, log_end
from tamed.builtin._upstreams import Balancer, ClientTls, Upstream
from tamed.errors import Unavailable, reason
from tamed.log.logger import own_logger
from tamed.net.endpoint import Endpoint, TlsEndpoint, address_text
from tamed.net.framing import Malformed, read_message
from tamed.net.proxy_header import Ends, Network, ProxyHeader, ends_of, parse_header
from tamed.net.stream import StreamServer
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration
from tamed.service.service import MultiService, Service
from tamed.service.timer import TimerService

__all__ = ["Forwarder", "Options", "portforward"]

log = own_logger("tamed.builtin")


@dataclass
class Options:
    """The options of ``portforward``."""

    listen: list[Endpoint] = option(help="An endpoint to listen on; tls:// for TLS with clients.")
    to: list[Endpoint] = option(help="An upstream; of several, the one with the fewest connections is used.")
    tls: bool = option(False, "Use TLS with the upstreams.")
    tls_ca: Path | None = option(
        None, "Certificate authorities of the upstreams, as PEM; by default the system's."
    )
    tls_name: str = option("", "Name that their certificates must have; by default their host.")
    tls_verify: bool = option(True, "Verify their certificates.")
    tls_cert: Path | None = option(None, "Client certificate to present to them, as PEM.")
    tls_key: Path | None = option(None, "Key of the client certificate, if it is in a separate file.")
    proxy_from: list[Network] = option(
        [], "Network, or unix, whose clients must send a PROXY header, which is trusted."
    )
    proxy_to: ProxyHeader = option(ProxyHeader.NONE, "The PROXY header to send to the upstreams.")
    connect_timeout: Duration = option(
        Duration("5s"), "Longest time for each address of an upstream to answer."
    )
    check_interval: Duration = option(
        Duration("10s"), "Interval of the checks that connect to each upstream; 0 for never."
    )
    pause: Duration = option(Duration("30s"), "Try an upstream that is down last, for this time.")
    idle_timeout: Duration = option(Duration("1h"), "Longest time that a connection may be idle.")
    half_closed_timeout: Duration = option(
        Duration("1m"), "The same for a connection that one side has half closed."
    )
    handshake_timeout: Duration = option(
        Duration("10s"), "Longest time for a client's TLS handshake, and for its PROXY header."
    )
    max_connections: int = option(2000, "Maximum number of connections; further clients wait.")
    max_connections_per_address: int | None = option(
        None, "The same for one address, unlimited by default; its further clients are refused."
    )

    def __post_init__(self) -> None:
        if not self.listen or not self.to:
            raise ValueError("there must be an endpoint to listen on, and one to forward to")
        if self.proxy_from and any(isinstance(endpoint, TlsEndpoint) for endpoint in self.listen):
            raise ValueError("a PROXY header precedes TLS, so it cannot be read on a tls:// endpoint")

    @property
    def upstreams(self) -> list[Upstream]:
        """The upstreams, in the given order."""
        timeout, pause = self.connect_timeout, self.pause
        return [
            Upstream(endpoint, timeout=timeout, pause=pause, client_tls=self._tls_for(endpoint))
            for endpoint in self.to
        ]

    def _tls_for(self, endpoint: Endpoint) -> ClientTls | None:
        tls = ClientTls(self.tls_ca, self.tls_name, self.tls_verify, self.tls_cert, self.tls_key)
        if isinstance(endpoint, TlsEndpoint):
            return tls.showing(endpoint)
        return tls if self.tls else None


@plugin
def portforward(options: Options) -> Service:
    """Forward connections to other servers."""
    forwarder = Forwarder(options)
    server = StreamServer(
        options.listen,
        forwarder.serve,
        name="server",
        max_connections=options.max_connections,
        max_connections_per_address=options.max_connections_per_address,
        tls_handshake_timeout=options.handshake_timeout,
    )
    service = MultiService("portforward", forwarder)
    if options.check_interval:
        service.add(TimerService(options.check_interval, forwarder.check, name="checks"))
    service.add(server)
    return service


class Forwarder(Service):
    """Forwards any connection to one of several upstreams, by `serve`.

    Peers in the networks of ``proxy_from`` must begin with a PROXY header, which is trusted, within
    ``handshake_timeout`` seconds. ``proxy_to`` is the header that the upstreams are sent. Each connection is
    one line in the log, with its byte counts.
    """

    def __init__(self, options: Options) -> None:
        super().__init__("forwarder")
        self._options = options
        self._balancer = Balancer(options.upstreams)

    @property
    def summary(self) -> str:
        """The upstreams."""
        return "to " + ", ".join(str(upstream.endpoint) for upstream in self._balancer.upstreams)

    async def prepare(self) -> None:
        """Read the files of TLS, while the process may read them."""
        for upstream in self._balancer.upstreams:
            upstream.load()

    async def check(self) -> None:
        """Connect to each upstream once, and record which ones are up."""
        header = self._options.proxy_to.encode(None)
        await asyncio.gather(*(upstream.check(header) for upstream in self._balancer.upstreams))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        client = Stream(reader, writer)
        source = await self._source(client)
        if source is None:
            writer.transport.abort()
            return
        ends, text = source
        begun = time.monotonic()
        try:
            header = self._options.proxy_to.encode(ends)
            async with self._balancer.connection(header) as (upstream, target):
                options = self._options
                relay = Relay(client, target, options.idle_timeout, options.half_closed_timeout)
                ending = "the server stopped"
                try:
                    ending = await relay.run()
                finally:
                    log_end(log, f"{text} to {upstream.endpoint}", relay, begun, ending)
        except Unavailable as error:
            log.info("%s is not served: %s", text, error)
            writer.transport.abort()

    async def _source(self, client: Stream) -> tuple[Ends | None, str] | None:
        """Return both ends of a connection, and a text for the log; None without a required PROXY header."""
        peer, own = (client.writer.get_extra_info(name) for name in ("peername", "sockname"))
        text, ends = address_text(peer), ends_of(peer, own)
        if not any(network.has(peer) for network in self._options.proxy_from):
            return ends, text
        try:
            async with asyncio.timeout(self._options.handshake_timeout):
                header = await read_message(client.reader, parse_header)
        except TimeoutError:
            log.info("%s sent no PROXY header within %g s", text, self._options.handshake_timeout)
        except Malformed as error:
            log.warning("%s is not served: %s", text, error)
        except (OSError, EOFError) as error:
            log.debug("%s left before its PROXY header: %s", text, reason(error))
        else:
            return (ends, text) if header is None else (header, f"{header} by {text}")
        return None
