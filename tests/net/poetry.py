"""Servers of a poem, and clients that read it slowly, half, or not at all."""

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tamed.net.datagram import DatagramServer
from tamed.net.listen import ListeningService
from tamed.net.reply import ReplyServer
from tamed.net.server import Server
from tamed.net.stream import ProtocolServer, StreamServer

POEM = bytes(range(256)) * 12
LONG_POEM = bytes(range(256)) * 65536  # 16 MB

SMALL = 128 * 1024
"""A receive buffer that holds little of a long poem, but is larger than a segment on the loopback interface
(64 KB): with a smaller one every window is a silly one, and each takes TCP a fifth of a second."""

ServerMaker = Callable[..., Server]


def stream_server(poem: bytes = POEM, endpoint: object = "127.0.0.1:0", **options: object) -> Server:
    """Make a StreamServer whose handler writes a poem and returns."""

    async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(poem)

    return StreamServer(endpoint, recite, **options)  # type: ignore[arg-type]


def protocol_server(poem: bytes = POEM, endpoint: object = "127.0.0.1:0", **options: object) -> Server:
    """Make a ProtocolServer whose protocol writes a poem and closes."""

    class Recital(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(poem)  # type: ignore[attr-defined]
            transport.close()

    return ProtocolServer(endpoint, Recital, **options)  # type: ignore[arg-type]


def reply_server(poem: bytes = POEM, endpoint: object = "127.0.0.1:0", **options: object) -> Server:
    """Make a ReplyServer whose reply is a poem."""
    return ReplyServer(endpoint, lambda _: poem, **options)  # type: ignore[arg-type]


every_server = pytest.mark.parametrize(
    "make",
    [
        pytest.param(stream_server, id="stream"),
        pytest.param(protocol_server, id="protocol"),
        pytest.param(reply_server, id="reply"),
    ],
)


def address_of(server: ListeningService | DatagramServer, index: int = 0) -> tuple[str, int]:
    """Return the host and port of a server's first socket, or another one."""
    sockets = [sock for listener in server.listeners for sock in listener.sockets]
    name = sockets[index].getsockname()
    return name[0], name[1]


def connect(
    server: Server, *, receive_buffer: int | None = None, address: str | None = None
) -> socket.socket:
    """Connect as far as the kernel can without the server: the connection waits in its queue."""
    sock = socket.socket()
    if address is not None:
        sock.bind((address, 0))
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(address_of(server))
    sock.setblocking(False)
    return sock


async def read(sock: socket.socket, size: int) -> bytes:
    """Read that many bytes."""
    received = bytearray()
    while len(received) < size:
        some = await asyncio.get_running_loop().sock_recv(sock, min(size - len(received), 65536))
        if not some:
            raise EOFError(f"{len(received)} bytes of {size}")
        received += some
    return bytes(received)


async def read_all(sock: socket.socket) -> bytes:
    """Read to the end."""
    received = bytearray()
    while some := await asyncio.get_running_loop().sock_recv(sock, 65536):
        received += some
    return bytes(received)


def reset(sock: socket.socket) -> None:
    """Close with a reset instead of an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def until(true: Callable[[], object]) -> None:
    """Let the event loop run until something is so; the test's time limit is the only one."""
    while not true():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


@asynccontextmanager
async def slowly(server: Server) -> AsyncIterator[Server]:
    """Run a server whose kernel buffers are small, so that what nobody reads stays with the server."""
    await server.lifecycle.prepare()
    for listener in server.listeners:
        for sock in listener.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    async with server:
        yield server


class Stopping:
    """A server's stop, begun and watched from outside."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.task = asyncio.get_running_loop().create_task(server.lifecycle.take_down())

    async def begun(self) -> None:
        """Wait until the server is draining."""
        await self._server.draining.wait()

    async def refused(self, address: tuple[str, int]) -> None:
        """Wait until new clients are refused; asking earlier would make one."""
        await until(lambda: not self._server.listeners)
        with socket.socket() as late:
            assert late.connect_ex(address) == errno.ECONNREFUSED

    async def done(self) -> None:
        """Wait until it has stopped; a failure fails the test."""
        assert await self.task == []
