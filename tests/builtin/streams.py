"""Servers to be reached through a proxy, and clients that send what a test says."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from tamed.net.server import Server
from tamed.net.stream import StreamServer
from tamed.service.service import Service

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back, to the end of the input and no further."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def tell_the_sum(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read to the end and say how much that was: an answer that needs a half-closed connection."""
    writer.write(b"%d bytes" % len(await reader.read()))


def server(handler: Handler = echo, endpoint: str = "127.0.0.1:0") -> StreamServer:
    """Make a server that does not wait long for its end."""
    return StreamServer(endpoint, handler, drain_timeout=0.2)


def address(service: Service) -> tuple[str, int]:
    """Return the host and port of a server, or of the server in a plugin's service."""
    found = (
        service if isinstance(service, Server) else next(s for s in service.walk() if isinstance(s, Server))
    )
    host, port = found.listeners[0].sockets[0].getsockname()[:2]
    return host, port


class Client(NamedTuple):
    """A connection as its client sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send some bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def expect(self, data: bytes) -> None:
        """Read just these bytes."""
        assert await self.reader.readexactly(len(data)) == data

    async def read_all(self) -> bytes:
        """Read to the end, which may be a reset."""
        received = bytearray()
        try:
            while data := await self.reader.read(65536):
                received += data
        except ConnectionResetError:
            pass
        return bytes(received)


@asynccontextmanager
async def connected(where: Service | tuple[str, int], **options: object) -> AsyncIterator[Client]:
    """Connect to a server; the connection is closed at the end."""
    host, port = address(where) if isinstance(where, Service) else where
    reader, writer = await asyncio.open_connection(host, port, **options)  # type: ignore[arg-type]
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@contextmanager
def unused_port() -> Iterator[int]:
    """Give a port of the loopback interface that refuses connections as long as this lasts."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


async def until(true: Callable[[], object]) -> None:
    """Let the event loop run until something is so; the test's time limit is the only one."""
    while not true():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a reset instead of an end."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
