"""The gate: servers that are ready and let nobody in."""

import asyncio
import socket
from typing import cast

import pytest

from tamed.net.datagram import DatagramServer
from tamed.net.listen import Gate, ServerEnvironment, use_environment
from tamed.net.server import Server
from tamed.net.stream import ProtocolServer, StreamServer
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")


def _connect(server: Server) -> socket.socket:
    """Connect; that takes a listening socket, and nobody who accepts."""
    host, _, port = server.addresses[0].rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


async def _read(sock: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()
        await writer.wait_closed()


async def _turn(times: int = 20) -> None:
    """Give the loop turns in which something wrong could happen."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_clients_wait_until_the_gate_opens() -> None:
    """They are in the kernel's queue, and are served then."""
    gate = Gate(is_open=False)
    with use_environment(ServerEnvironment(gate=gate)):
        server = StreamServer("127.0.0.1:0", _greet)
        async with server:
            client = _connect(server)
            await _turn()
            assert server.accepted == 0
            gate.open()
            assert await _read(client) == b"hello"


async def test_nobody_comes_in_after_it_was_shut() -> None:
    """Those who are in are served to the end; who comes later is left to another server of the socket."""
    gate = Gate()
    with use_environment(ServerEnvironment(gate=gate)), socket.create_server(("127.0.0.1", 0)) as own:
        other = own.dup()
        server = StreamServer(f"fd://{own.fileno()}", _greet)
        async with server:
            assert await _read(_connect(server)) == b"hello"
            gate.shut()
            client = _connect(server)
            await _turn()
        assert server.accepted == 1
        with other, client:
            other.settimeout(PATIENCE)
            accepted, _ = other.accept()
            accepted.close()


async def test_a_server_that_stops_behind_a_shut_gate_takes_nobody_with_it() -> None:
    """Also if it believes that the socket is its own: those who wait are another process's clients."""
    gate = Gate()
    with use_environment(ServerEnvironment(gate=gate)):
        server = StreamServer("127.0.0.1:0", _greet)
        async with server:
            gate.shut()
            other = server.listeners[0].sockets[0].dup()
            client = _connect(server)
        assert server.accepted == 0
        with other, client:
            other.settimeout(PATIENCE)
            other.accept()[0].close()


async def test_a_server_at_its_limit_stays_there_when_the_gate_opens() -> None:
    """One who is in has to leave before the next one comes in."""
    gate = Gate()
    is_in, until = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"in")
        is_in.set()
        await until.wait()

    with use_environment(ServerEnvironment(gate=gate)):
        server = StreamServer("127.0.0.1:0", wait, max_connections=1)
        async with server:
            first = asyncio.ensure_future(_read(_connect(server)))
            await is_in.wait()
            second = asyncio.ensure_future(_read(_connect(server)))
            gate.shut()
            gate.open()
            await _turn()
            assert server.accepted == 1
            until.set()
            assert [await first, await second] == [b"in", b"in"]


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.transport.sendto(data, addr)  # type: ignore[arg-type]


async def test_packets_wait_until_the_gate_opens() -> None:
    """Also after it was open before."""
    gate = Gate(is_open=False)
    loop = asyncio.get_running_loop()
    with (
        use_environment(ServerEnvironment(gate=gate)),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.setblocking(False)
        server = DatagramServer("127.0.0.1:0", _Echo)
        async with server:
            host, _, port = server.addresses[0].rpartition(":")
            client.connect((host, int(port)))
            for word in (b"one", b"two"):
                client.send(word)
                await _turn()
                with pytest.raises(BlockingIOError):
                    client.recv(10)
                gate.open()
                assert await asyncio.wait_for(loop.sock_recv(client, 10), PATIENCE) == word
                gate.shut()


async def test_a_datagram_server_stops_while_the_gate_is_shut() -> None:
    """As it does otherwise; a gate that opens later is none of its business."""
    gate = Gate(is_open=False)
    with use_environment(ServerEnvironment(gate=gate)):
        async with DatagramServer("127.0.0.1:0", _Echo):
            pass
    gate.open()


async def test_a_protocol_that_cannot_be_made_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """When the gate opens, which is too late for the start to fail."""

    def fail() -> asyncio.DatagramProtocol:
        raise RuntimeError("no protocol")

    gate = Gate(is_open=False)
    with use_environment(ServerEnvironment(gate=gate)):
        async with DatagramServer("127.0.0.1:0", fail, name="echo"):
            gate.open()
            await _turn()
    assert "echo cannot receive" in caplog.text


async def test_a_protocol_is_notified_again_when_nobody_else_serves() -> None:
    """It may keep its connection while the gate is shut, and learns of the end when that opens."""
    gate = Gate()
    seen: list[bool] = []

    class Waiting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            made.set()

        def connection_draining(self) -> None:
            seen.append(gate.is_open)
            if gate.is_open:
                self.transport.close()

    made = asyncio.Event()
    with use_environment(ServerEnvironment(gate=gate)):
        server = ProtocolServer("127.0.0.1:0", Waiting)
        async with server:
            client = _connect(server)
            await made.wait()
            gate.shut()
            stopping = asyncio.create_task(server.stop())
            await _turn()
            assert seen == [False]
            gate.open()
            assert await _read(client) == b""
            await stopping
    gate.shut()
    gate.open()
    assert seen == [False, True]
