"""Files over FTP (RFC 959, 2428, 3659): read-only for all clients, more for users with a password."""

import asyncio
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from tamed.builtin._ftp.commands import Accounts, Commands, Limits
from tamed.builtin._ftp.data import PortRange
from tamed.builtin._ftp.session import Session
from tamed.builtin._rooted import DirectoryService, RootedDirectory
from tamed.errors import ConfigurationError
from tamed.net.endpoint import Endpoint, TcpEndpoint, UnixEndpoint
from tamed.net.stream import StreamServer
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration, Size
from tamed.service.service import MultiService, Service

__all__ = ["Options", "ftp"]

_NEEDS = "FTP needs internet addresses, for its data connections"


@dataclass
class Options:
    """The options of ``ftp``."""

    root: Path = option(help="Directory to serve. Nothing outside it can be reached.")
    port: int = option(2121, "The port number to listen on.", short="p")
    iface: str = option("localhost", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    anonymous: bool = option(True, "Allow reading without a password.")
    passwords: Path | None = option(None, "File of users and their hashed passwords.")
    write: bool = option(False, "Allow users with a password to change files.")
    dot_files: bool = option(False, "Serve files and directories whose names begin with a dot.")
    passive_ports: PortRange = option(PortRange(), "Ports for data connections; 0 for any.")
    passive_address: str | None = option(None, "IPv4 address for data connections, if behind NAT.")
    max_connections: int = option(1000, "Maximum number of clients; further clients wait.", ge=1)
    max_connections_per_address: int = option(10, "The same for one address.", ge=1)
    max_line: Size = option(Size("4 KiB"), "Longest command.")
    idle: Duration = option(Duration("5m"), "Longest time between two commands.")
    stall: Duration = option(Duration("1m"), "Longest time without progress of a transfer.")

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError for invalid options
        if self.passive_address is not None:
            ipaddress.IPv4Address(self.passive_address)
        if any(isinstance(endpoint, UnixEndpoint) for endpoint in self.listen):
            raise ValueError(f"{_NEEDS}: no unix: endpoint")
        if not self.anonymous and self.passwords is None:
            raise ValueError("no user could log in; use --passwords FILE, or allow anonymous users")
        if self.write and self.passwords is None:
            raise ValueError("no user could write; use --passwords FILE")


class _Server(StreamServer):
    """A server at internet addresses, also if its sockets were passed to it."""

    async def prepare(self) -> None:
        await super().prepare()
        for listener in self.listeners:
            if any(address.startswith("unix:") for address in listener.addresses):
                await self.release()
                remedy = "pass a TCP socket"
                raise ConfigurationError(
                    f"cannot listen on {listener.endpoint}: it is a unix socket", _NEEDS, remedy
                )


@plugin
def ftp(options: Options) -> Service:
    """Files over FTP: read-only for everybody, more for users with a password."""
    root = RootedDirectory(options.root, dot_files=options.dot_files)
    accounts = Accounts(options.passwords, anonymous=options.anonymous, write=options.write)
    limits = Limits(idle=options.idle, stall=options.stall)
    commands = Commands(root, accounts, options.passive_ports, options.passive_address, limits)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Otherwise the client has disconnected.
        if isinstance(writer.get_extra_info("peername"), tuple):
            await Session(commands, reader, writer, server.draining).run()

    server = _Server(
        options.listen or [TcpEndpoint(options.iface, options.port)],
        serve,
        name="server",
        limit=options.max_line,
        max_connections=options.max_connections,
        max_connections_per_address=options.max_connections_per_address,
    )
    return MultiService("ftp", DirectoryService(root), accounts, server)
