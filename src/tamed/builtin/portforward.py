"""Forwarding of ports, in the form of a plugin."""

from dataclasses import dataclass
from pathlib import Path

from tamed.builtin._portforward import ClientTls, Forwarder, Network, ProxyHeader, Upstream
from tamed.builtin._relay import Patience
from tamed.net.endpoint import Endpoint, TlsEndpoint
from tamed.net.stream import StreamServer
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration
from tamed.service.service import MultiService, Service
from tamed.service.timer import TimerService

__all__ = ["Options", "portforward"]


@dataclass
class Options:
    """The options of ``portforward``."""

    listen: list[Endpoint] = option(help="An endpoint to listen on; tls:// to speak TLS to clients.")
    to: list[Endpoint] = option(help="An upstream; of several, the one with the fewest connections is taken.")
    tls: bool = option(False, "Whether to speak TLS to the upstreams.")
    tls_ca: Path | None = option(None, "Their authorities, as PEM; without it, the system's.")
    tls_name: str = option("", "The name that their certificates must be for; without it, their host.")
    tls_verify: bool = option(True, "Whether to verify their certificates.")
    tls_cert: Path | None = option(None, "A certificate to show them, as PEM.")
    tls_key: Path | None = option(None, "Its key, if that is in a file of its own.")
    proxy_from: list[Network] = option(
        [], "A network (or unix) whose clients must begin with a PROXY header, which is believed."
    )
    proxy_to: ProxyHeader = option(ProxyHeader.NONE, "The PROXY header to send to the upstreams.")
    connect_timeout: Duration = option(Duration("5s"), "How long each address of an upstream has to answer.")
    check_interval: Duration = option(
        Duration("10s"), "How often to connect to each upstream to see whether it is up; 0 for never."
    )
    pause: Duration = option(Duration("30s"), "How long an upstream that is down is the last to be tried.")
    idle_timeout: Duration = option(Duration("1h"), "How long a connection may move nothing.")
    half_closed_timeout: Duration = option(
        Duration("1m"), "The same for a connection of which one side has said all."
    )
    handshake_timeout: Duration = option(
        Duration("10s"), "How long a client has for its TLS handshake, and for its PROXY header."
    )
    max_connections: int = option(2000, "How many clients are served at a time; others wait.")
    max_connections_per_address: int | None = option(
        None, "How many of one address; others are refused. Without it, there is no such limit."
    )

    def __post_init__(self) -> None:
        if not self.listen or not self.to:
            raise ValueError("there must be an endpoint to listen on, and one to forward to")
        if self.proxy_from and any(isinstance(endpoint, TlsEndpoint) for endpoint in self.listen):
            raise ValueError("a PROXY header comes before TLS, and cannot be read on a tls:// endpoint")

    @property
    def upstreams(self) -> list[Upstream]:
        """The upstreams, in the order in which they were given."""
        timeout, pause = self.connect_timeout, self.pause
        return [
            Upstream(endpoint, timeout=timeout, pause=pause, tls=self._tls_for(endpoint))
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
    forwarder = Forwarder(
        options.upstreams,
        Patience(options.idle_timeout, options.half_closed_timeout),
        header_from=options.proxy_from,
        header_timeout=options.handshake_timeout,
        header_to=options.proxy_to,
    )
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
