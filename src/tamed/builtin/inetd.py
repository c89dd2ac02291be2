"""A program for each connection, with the connection as its standard input and output."""

from dataclasses import dataclass

from tamed.builtin.programs import ProgramOptions, Sessions, Warden
from tamed.net import Endpoint, StreamServer
from tamed.plugins.option import REQUIRED, option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration
from tamed.service.service import MultiService, Service

__all__ = ["Options", "inetd"]


@dataclass
class Options(ProgramOptions):
    """The options of ``inetd``."""

    listen: list[Endpoint] = option(REQUIRED, "An endpoint to listen on.")
    max_connections: int = option(100, "With that many open, no more are accepted until one is closed.")
    max_connections_per_address: int = option(10, "More from one address are closed at once; 0: no limit.")
    max_time: Duration = option(Duration("1h"), "How long a connection may last; 0: no limit.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_connections < 1:
            raise ValueError("max-connections must be at least 1")
        if self.max_connections_per_address < 0:
            raise ValueError("max-connections-per-address must not be negative")


@plugin
def inetd(options: Options) -> Service:
    """Runs a program for each connection."""
    warden = Warden()
    sessions = Sessions(
        options.program(), warden, max_time=options.max_time or None, line_limit=options.line_limit
    )
    server = StreamServer(
        options.listen,
        sessions.serve,
        name="server",
        max_connections=options.max_connections,
        max_connections_per_address=options.max_connections_per_address or None,
    )
    return MultiService("inetd", warden, sessions, server)
