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
"""Seconds by which the answer to a wrong password is delayed at most: programs do not wait as people do."""


@dataclass
class Options:
    """The options of ``socks``."""

    port: int = option(1080, "The port number to listen on.", short="p")
    iface: str = option("localhost", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    users: Path | None = option(None, "A file of NAME:HASH lines; only these users are accepted.")
    open: bool = option(False, "Accept any client without a password, also from other machines.")
    allow: list[TargetPattern] = option(
        [],
        "Targets that may be reached, and no others: a network, host, *.domain or *, and :PORT if need be.",
    )
    deny: list[TargetPattern] = option([], "Targets that may not be reached, even if they are allowed.")
    udp: bool = option(True, "Relay UDP packets too.")
    handshake_timeout: Duration = option(
        Duration("10s"), "The longest that a client may take to send its request."
    )
    connect_timeout: Duration = option(
        Duration("10s"), "The longest that each address of a target may take to answer."
    )
    idle_timeout: Duration = option(Duration("5m"), "The longest that a connection may be idle.")
    half_closed_timeout: Duration = option(
        Duration("1m"), "The same for a connection of which one side has ended its direction."
    )
    max_connections: int = option(2000, "Connections that are served at a time; more clients wait.")
    max_connections_per_address: int = option(
        100, "The same for one address; more clients of it are refused."
    )

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError: a mistake in the options
        exposed = [str(endpoint) for endpoint in self.endpoints if not is_local(endpoint)]
        if exposed and self.users is None and not self.open:
            raise ValueError(
                f"{exposed[0]} can be reached from elsewhere, and anybody could use this machine as a proxy:"
                " name --users, or let everybody in with --open"
            )

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where to listen."""
        return self.listen or [TcpEndpoint(self.iface, self.port)]

    @property
    def timeouts(self) -> Timeouts:
        """How long each phase of a connection may take."""
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
