import asyncio
import logging
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tamed.errors import ServiceFailed
from tamed.net.datagram import DatagramServer
from tamed.net.endpoint import Endpoint
from tamed.net.listen import Listener, LocalSource, ServerEnvironment, use_environment
from tamed.service.service import MultiService
from tests.net.poetry import address_of, until

pytestmark = pytest.mark.anyio


class Echo(asyncio.DatagramProtocol):
    """Sends back what it receives."""

    closed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        Echo.closed += 1


def client_of(server: DatagramServer, index: int = 0) -> socket.socket:
    """Return a socket whose datagrams go to the server."""
    listening = [sock for listener in server.listeners for sock in listener.sockets][index]
    client = socket.socket(listening.family, socket.SOCK_DGRAM)
    client.connect(listening.getsockname())
    client.setblocking(False)
    return client


async def test_packets_are_received_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    """Packets to each address are received and answered, and each is logged."""
    caplog.set_level(logging.INFO)
    server = DatagramServer(["127.0.0.1:0", "[::1]:0"], Echo)
    assert server.summary == "127.0.0.1:0, [::1]:0"
    async with server:
        assert server.addresses == (
            f"127.0.0.1:{address_of(server)[1]}",
            f"[::1]:{address_of(server, 1)[1]}",
        )
        for index in (0, 1):
            with closing(client_of(server, index)) as client:
                client.send(b"hello")
                assert await asyncio.get_running_loop().sock_recv(client, 100) == b"hello"
            assert f"listening on {server.addresses[index]}" in caplog.text


async def test_a_stop_closes_and_a_start_opens() -> None:
    """Protocols learn of the end before the server has stopped, and it can be started again."""
    server = DatagramServer("127.0.0.1:0", Echo)
    for _ in range(2):
        before = Echo.closed
        async with server:
            address = address_of(server)
            assert Echo.closed == before
        assert Echo.closed == before + 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(address)


async def test_packets_wait_for_a_restart() -> None:
    """The socket outlives a restart, and what came meanwhile is received."""
    server = DatagramServer("127.0.0.1:0", Echo)
    async with MultiService("parent", server):
        with closing(client_of(server)) as client:
            server.lifecycle.is_restarting = True
            await server.lifecycle.stop()
            client.send(b"anybody there?")
            await server.lifecycle.start()
            server.lifecycle.is_restarting = False
            assert await asyncio.get_running_loop().sock_recv(client, 100) == b"anybody there?"


async def test_a_factory_that_fails_fails_the_start() -> None:
    """Nothing is left open then, though another socket had its protocol already."""
    made: list[Echo] = []

    def factory() -> Echo:
        if made:
            raise ValueError("one is enough")
        made.append(Echo())
        return made[0]

    before = Echo.closed
    with pytest.raises(ServiceFailed, match="one is enough"):
        async with DatagramServer(["127.0.0.1:0", "127.0.0.1:0"], factory):
            pass
    assert Echo.closed == before + 1


async def test_a_protocol_that_closes_its_transport_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A server whose transport was closed logs that, and stops as usual."""

    class Shy(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: object) -> None:
            self.transport.close()

    async with DatagramServer("127.0.0.1:0", Shy) as server:
        with closing(client_of(server)) as client:
            client.send(b"hello")
            await until(lambda: not server._transports)
    assert "datagram-server no longer receives on one of its sockets" in caplog.text


async def test_a_source_with_the_wrong_kind_of_socket_fails_the_start() -> None:
    """No socket is left open."""

    class Confused:
        async def listen(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
            return self.listen_now(endpoint)

        def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
            return LocalSource().listen_now(endpoint, socket.SOCK_STREAM)

    with (
        use_environment(ServerEnvironment(Confused())),
        pytest.raises(ServiceFailed, match="was expected, got"),
    ):
        async with DatagramServer("127.0.0.1:0", Echo):
            pass


async def test_unix_datagrams(tmp_path: Path) -> None:
    """A unix socket's datagrams are received."""
    received: list[bytes] = []
    event = asyncio.Event()

    class Listening(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            received.append(data)
            event.set()

    path = tmp_path / "packets.sock"
    async with DatagramServer(f"unix:{path}", Listening):
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as client:
            client.connect(str(path))
            client.send(b"hello")
            await event.wait()
    assert received == [b"hello"]
    assert not path.exists()
