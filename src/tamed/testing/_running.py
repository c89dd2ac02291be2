"""A service that runs in a test, and where its servers are to be reached."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from tamed.net import Endpoint, ListeningService, Surroundings, TcpEndpoint, UnixEndpoint, using
from tamed.service.service import Service
from tamed.testing._ports import FreePorts

__all__ = ["Running", "connected", "running", "target_of"]

S = TypeVar("S", bound=Service)


class Running(Generic[S]):
    """A service that is ready; `running` gives one.

    ``service`` is the service itself.
    """

    def __init__(self, service: S) -> None:
        self.service = service

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of all its servers, in starting order, as one would type them."""
        return tuple(address for server in self._servers() for address in server.addresses)

    def address(self, server: str = "") -> str:
        """Return the first address of a server, which is named by its ``full_name``; else the first of all.

        Raises LookupError if there is none.
        """
        for found in self._servers():
            if found.addresses and server in ("", found.full_name):
                return found.addresses[0]
        names = ", ".join(found.full_name for found in self._servers())
        raise LookupError(f"no server {server!r} listens here; there is: {names or 'none'}")

    async def connect(self, server: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the address of a server, without TLS. Raises what `address` does, and OSError."""
        target = target_of(self.address(server))
        if isinstance(target, str):
            return await asyncio.open_unix_connection(sock=connected(target))
        return await asyncio.open_connection(*target)

    async def fetch(self, server: str = "", send: bytes = b"") -> bytes:
        """Connect, send something, and return all that comes until the server closes the connection."""
        reader, writer = await self.connect(server)
        try:
            writer.write(send)
            return await reader.read()
        finally:
            writer.close()

    def _servers(self) -> list[ListeningService]:
        return [service for service in self.service.walk() if isinstance(service, ListeningService)]


@asynccontextmanager
async def running(service: S, *, drain_timeout: float = 5.0) -> AsyncIterator[Running[S]]:
    """Run any service, or an application, in the body of an ``async with``; it is ready there.

    ::

        async with running(fastpoetry(Options())) as poetry:
            assert await poetry.fetch() == POEM

    Its servers listen for real, each on a free port whatever port they are configured with. Servers
    that do not say themselves have ``drain_timeout`` seconds for their connections when it is stopped. What
    makes it fail is raised, as by ``async with service`` itself.
    """
    with using(Surroundings(FreePorts(), drain_timeout)):
        async with service:
            yield Running(service)


def connected(path: str) -> socket.socket:
    """Return a socket that is connected to a unix socket, also to an abstract one, which uvloop cannot."""
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def target_of(address: str) -> str | tuple[str, int]:
    """Return what a client's socket connects to: the path of a unix socket, or a host and a port."""
    match Endpoint.parse(address):
        case UnixEndpoint(path=path):
            return f"\0{path[1:]}" if path.startswith("@") else path
        case TcpEndpoint(host=host, port=port):
            return host, port
        case other:
            raise LookupError(f"{other} is not an address to connect to")
