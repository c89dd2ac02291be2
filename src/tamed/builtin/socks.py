"""A SOCKS proxy, as a plugin."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tamed.builtin._login import LoginGate, is_local
from tamed.builtin._relay import RelayTimeouts
from tamed.builtin._socks.proxy import Proxy, Timeouts
from tamed.builtin._socks.rules import TargetPattern, TargetRules
from tamed.log.logger import own_logger
from tamed.net.endpoint import Endpoint, TcpEndpoint
from tamed.net.stream import StreamServer
from tamed.passwords import PasswordFile
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration
from tamed.service.service import MultiService, Service

__all__ = ["Options", "socks"]

_LONGEST_DELAY: Final = 1.0
"""Maximum delay, in seconds, of the answer to a wrong password: programs wait less than people."""


@dataclass
class Options:
    """The options of ``socks``."""

    port: int = option(1080, "The port number to listen on.", short="p")
    iface: str = option("localhost", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    users: Path | None = option(None, "File of NAME:HASH lines. Only these users are accepted.")
    open: bool = option(False, "Accept any client without a password, even from other machines.")
    allow: list[TargetPattern] = option(
        [],
        "Only allow these targets: a network, host, *.domain or *, with an optional :PORT.",
    )
    deny: list[TargetPattern] = option([], "Refuse these targets, even if they are allowed.")
    udp: bool = option(True, "Relay UDP packets, too.")
    handshake_timeout: Duration = option(Duration("10s"), "Longest time for a client to send its request.")
    connect_timeout: Duration = option(
        Duration("10s"), "Longest time for each address of a target to answer."
    )
    idle_timeout: Duration = option(Duration("5m"), "Longest time that a connection may be idle.")
    half_closed_timeout: Duration = option(
        Duration("1m"), "The same for a connection that one side has half closed."
    )
    max_connections: int = option(2000, "Maximum number of connections; further clients wait.")
    max_connections_per_address: int = option(
        100, "The same for one address; its further clients are refused."
    )

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError for invalid options
        exposed = [str(endpoint) for endpoint in self.endpoints if not is_local(endpoint)]
        if exposed and self.users is None and not self.open:
            raise ValueError(
                f"{exposed[0]} can be reached from elsewhere, and any client could use this machine as a"
                " proxy; use --users, or accept every client with --open"
            )

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints to listen on."""
        return self.listen or [TcpEndpoint(self.iface, self.port)]

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts of the phases of a connection."""
        relay = RelayTimeouts(self.idle_timeout, self.half_closed_timeout)
        return Timeouts(self.handshake_timeout, self.connect_timeout, relay)


@plugin
def socks(options: Options) -> Service:
    """A SOCKS proxy, versions 4, 4a and 5."""
    gate = None
    if options.users is not None:
        gate = LoginGate(PasswordFile(options.users), own_logger("socks"), hold=_LONGEST_DELAY)
    rules = TargetRules(options.allow, options.deny)
    proxy = Proxy(rules, options.timeouts, gate=gate, udp=options.udp)
    server = StreamServer(
        options.endpoints,
        proxy.serve,
        name="server",
        max_connections=options.max_connections,
        max_connections_per_address=options.max_connections_per_address,
        tls_handshake_timeout=options.handshake_timeout,
    )
    return MultiService("socks", proxy, server)
