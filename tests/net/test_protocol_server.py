import asyncio
import gc
import logging
from contextlib import closing

import pytest

from tamed.net.stream import ProtocolServer
from tests.net.poetry import POEM, connect, protocol_server, read, read_all, until

pytestmark = pytest.mark.anyio


class Echo(asyncio.Protocol):
    """Sends back what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert hasattr(transport, "write")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Upper(Echo):
    """The same, louder."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data.upper())


async def test_conversations_go_on_until_the_peer_leaves() -> None:
    """A connection counts as open until it is closed from either side."""
    async with ProtocolServer("127.0.0.1:0", Echo) as server:
        with closing(connect(server)) as client:
            for line in (b"one\n", b"two\n"):
                client.sendall(line)
                assert await read(client, len(line)) == line
            assert server.connections == 1
        await until(lambda: server.connections == 0)


async def test_a_protocol_that_is_replaced_makes_no_difference() -> None:
    """After ``set_protocol`` the count is exact still, and a stop tells the one that is there now."""
    told = []

    class Loud(Upper):
        def connection_draining(self) -> None:
            told.append(self)
            self.transport.close()

    class Switching(Echo):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            loud = Loud()
            loud.transport = self.transport
            self.transport.set_protocol(loud)

        def connection_draining(self) -> None:
            raise AssertionError("it is no longer the transport's")

    async with ProtocolServer("127.0.0.1:0", Switching) as server:
        with closing(connect(server)) as client:
            client.sendall(b"quiet")
            assert await read(client, 5) == b"quiet"
            client.sendall(b"loud")
            assert await read(client, 4) == b"LOUD"
            await server.stop()
            assert await read_all(client) == b""
    assert len(told) == 1
    assert server.connections == 0


async def test_buffered_protocols_work_as_they_are() -> None:
    """Any kind of protocol can be served, as nothing of ours is around it."""

    class Buffered(asyncio.BufferedProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.buffer = bytearray(100)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.transport.write(bytes(self.buffer[:nbytes]))  # type: ignore[attr-defined]

    async with ProtocolServer("127.0.0.1:0", Buffered) as server:
        with closing(connect(server)) as client:
            client.sendall(b"echo")
            assert await read(client, 4) == b"echo"
        await until(lambda: server.connections == 0)


async def test_a_factory_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Its connection is closed, with the peer and the traceback in the log, and the next one is served."""
    failures = [ValueError("no protocol today")]

    class Recital(asyncio.Protocol):
        def __init__(self) -> None:
            if failures:
                raise failures.pop()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.write(POEM)  # type: ignore[attr-defined]
            transport.close()

    async with ProtocolServer("127.0.0.1:0", Recital) as server:
        with closing(connect(server)) as unlucky:
            peer = "{}:{}".format(*unlucky.getsockname())
            assert await read_all(unlucky) == b""
        assert server.connections == 0
        with closing(connect(server)) as lucky:
            assert await read_all(lucky) == POEM
    assert f"protocol-server cannot serve {peer}" in caplog.text
    assert "ValueError: no protocol today" in caplog.text


async def test_a_protocol_that_aborts_at_once_is_counted_down() -> None:
    """Ending a connection in ``connection_made`` leaves nothing behind."""

    class Curt(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.abort()  # type: ignore[attr-defined]

    async with ProtocolServer("127.0.0.1:0", Curt) as server:
        clients = [connect(server) for _ in range(10)]
        for client in clients:
            with closing(client):
                assert await read_all(client) == b""
        await until(lambda: server.connections == 0)
        assert server.accepted == 10


async def test_nothing_is_left_of_closed_connections() -> None:
    """Neither socket nor protocol outlives its connection."""
    before = alive("Connection")
    async with protocol_server() as server:
        for _ in range(20):
            with closing(connect(server)) as client:
                await read_all(client)
        await until(lambda: server.connections == 0)
        assert alive("Recital") == 0
        assert alive("Connection") <= before


def alive(name: str) -> int:
    """Return how many objects of a class of ours there are, once garbage is collected."""
    gc.collect()
    kinds = [type(thing) for thing in gc.get_objects()]
    return sum(kind.__name__ == name and kind.__module__.startswith(("tamed.", "tests.")) for kind in kinds)


async def test_every_socket_of_an_endpoint_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Each address has its line when the server listens."""
    caplog.set_level(logging.INFO)
    async with ProtocolServer([":0", "127.0.0.1:0"], Echo) as server:
        told = [record.getMessage() for record in caplog.records if "listening on" in record.getMessage()]
        assert told == [f"listening on {address}" for address in server.addresses]
        assert len(told) >= 2
