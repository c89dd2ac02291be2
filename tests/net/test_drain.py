import asyncio
import logging
import socket
from contextlib import closing

import pytest

from tamed.net.stream import ProtocolServer, StreamServer
from tamed.service.lifecycle import State
from tamed.service.service import MultiService
from tests.net.poetry import (
    LONG_POEM,
    POEM,
    SMALL,
    ServerMaker,
    Stopping,
    address_of,
    connect,
    every_server,
    read,
    read_all,
    slowly,
    until,
)

pytestmark = pytest.mark.anyio


@every_server
async def test_a_reader_of_half_a_long_poem_gets_the_rest_during_the_stop(make: ServerMaker) -> None:
    """New clients are refused, and the one that is being served reads on to the end."""
    async with slowly(make(LONG_POEM, drain_timeout=60)) as server:
        address = address_of(server)
        with closing(connect(server, receive_buffer=SMALL)) as client:
            half = await read(client, len(LONG_POEM) // 2)
            stopping = Stopping(server)
            await stopping.refused(address)
            assert server.connections == 1
            assert not stopping.task.done()
            assert half + await read_all(client) == LONG_POEM
        await stopping.done()
        assert server.connections == 0


@every_server
async def test_a_reader_that_is_silent_past_the_deadline_is_cut(
    make: ServerMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection is reset, so that it does not take its part for the whole; one warning names it."""
    async with slowly(make(LONG_POEM, drain_timeout=0.05)) as server:
        with closing(connect(server, receive_buffer=SMALL)) as client:
            await read(client, 4096)
            peer = "{}:{}".format(*client.getsockname())
            await Stopping(server).done()
            assert server.connections == 0
            received = b""
            with pytest.raises(ConnectionResetError):
                received = await read(client, len(LONG_POEM))
            assert len(received) < len(LONG_POEM) - 4096
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert f"1 connection ({peer})" in warnings[0]
    assert "within 0.05 s" in warnings[0]


@every_server
async def test_a_connection_in_the_kernels_queue_is_served_by_the_stop(make: ServerMaker) -> None:
    """Clients that connected before the stop, and were not accepted yet, get their poem."""
    async with make(drain_timeout=60) as server:
        clients = [connect(server) for _ in range(100)]
        stopping = Stopping(server)
        for client in clients:
            with closing(client):
                assert await read_all(client) == POEM
        await stopping.done()
        assert server.accepted == 100


@every_server
async def test_the_queue_is_served_within_the_limit(make: ServerMaker) -> None:
    """A stop takes from the kernel's queue no more at a time than ``max_connections``."""
    async with slowly(make(LONG_POEM[: 1 << 20], max_connections=2, drain_timeout=60)) as server:
        clients = [connect(server, receive_buffer=SMALL) for _ in range(5)]
        await until(lambda: server.connections == 2)
        stopping = Stopping(server)
        await stopping.begun()
        for client in clients:
            assert server.connections <= 2
            with closing(client):
                assert await read_all(client) == LONG_POEM[: 1 << 20]
        await stopping.done()
        assert server.accepted == 5


async def test_a_flood_of_clients_does_not_keep_a_server_from_stopping() -> None:
    """A stop takes ``backlog`` clients from the queue at most, though new ones come in their stead."""
    clients = []

    async def recite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.listeners:
            clients.append(connect(server))
        writer.write(POEM)

    server = StreamServer("127.0.0.1:0", recite, backlog=8, drain_timeout=60)
    async with server:
        clients.append(connect(server))
        await Stopping(server).done()
        assert 0 < server.accepted < 100
    for client in clients:
        client.close()


async def test_a_client_that_has_sent_nothing_is_answered_after_the_stop_began() -> None:
    """A connection that was accepted and waits for its request is open until it is answered."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())

    async with StreamServer("127.0.0.1:0", echo, drain_timeout=60) as server:
        address = address_of(server)
        with closing(connect(server)) as accepted:
            await until(lambda: server.connections == 1)
            with closing(connect(server)) as queued:
                stopping = Stopping(server)
                await stopping.refused(address)
                for client in (accepted, queued):
                    client.sendall(b"still there?\n")
                    assert await read_all(client) == b"still there?\n"
        await stopping.done()


async def test_a_stop_waits_for_handlers_too() -> None:
    """A handler that has work to do after its connection was closed does it before the server has stopped."""
    release = asyncio.Event()
    done = []

    async def settle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()
        await release.wait()
        done.append(True)

    async with StreamServer("127.0.0.1:0", settle, drain_timeout=60) as server:
        with closing(connect(server)) as client:
            await read_all(client)
        await until(lambda: server.connections == 0)
        stopping = Stopping(server)
        await stopping.begun()
        assert not stopping.task.done()
        release.set()
        await stopping.done()
    assert done == [True]


async def test_handlers_are_cancelled_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that never returns is cancelled, whether its connection is open or not, and counted."""
    cancelled: list[bool] = []

    async def wait_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.accepted == 1:
            writer.close()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    server = StreamServer("127.0.0.1:0", wait_for_ever, drain_timeout=0.02)
    async with server:
        with closing(connect(server)) as first:
            await read_all(first)
        with closing(connect(server)) as second:
            await until(lambda: server.accepted == 2)
            await Stopping(server).done()
            with pytest.raises(ConnectionResetError):
                await read_all(second)
    assert cancelled == [True, True]
    assert "1 connection (127.0.0.1:" in caplog.text
    assert "1 handler of closed connections" in caplog.text


async def test_handlers_may_wait_for_the_drain() -> None:
    """``draining`` tells long-lived handlers that the server is stopping."""

    async def news(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await server.draining.wait()
        writer.write(b"bye\n")

    server = StreamServer("127.0.0.1:0", news, drain_timeout=60)
    async with server:
        with closing(connect(server)) as client:
            assert await read(client, 6) == b"hello\n"
            stopping = Stopping(server)
            assert await read_all(client) == b"bye\n"
        await stopping.done()


async def test_protocols_are_notified_of_the_drain() -> None:
    """``connection_draining`` is called on those that have it, once, also on one accepted during the stop."""
    told = []

    class Idle(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def connection_draining(self) -> None:
            told.append(self)
            self.transport.close()

    async with ProtocolServer("127.0.0.1:0", Idle, drain_timeout=60) as server:
        with closing(connect(server)) as accepted:
            await until(lambda: server.connections == 1)
            with closing(connect(server)) as queued:
                await Stopping(server).done()
                assert await read_all(accepted) == await read_all(queued) == b""
    assert len(told) == len(set(told)) == 2


async def test_a_protocol_that_fails_to_drain_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    """What ``connection_draining`` raises is logged, and the others are told all the same."""

    class Bad(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def connection_draining(self) -> None:
            self.transport.close()
            raise ValueError("not now")

    async with ProtocolServer("127.0.0.1:0", Bad, drain_timeout=60) as server:
        with closing(connect(server)), closing(connect(server)):
            await until(lambda: server.connections == 2)
            await Stopping(server).done()
    assert caplog.text.count("ValueError: not now") == 2


@every_server
async def test_a_server_starts_again_after_it_stopped(make: ServerMaker) -> None:
    """Prepared and started once more, it serves as before."""
    server = make(drain_timeout=60)
    for _ in range(2):
        async with server:
            with closing(connect(server)) as client:
                assert await read_all(client) == POEM
        assert server.state is State.STOPPED
        assert server.addresses == ()
    assert server.accepted == 2


@every_server
async def test_a_restart_keeps_the_sockets_listening(make: ServerMaker) -> None:
    """A client that connects between the stop and the start of a restart waits, and is served."""
    server = make(drain_timeout=60)
    parent = MultiService("parent", server)
    async with parent:
        address = server.addresses
        server.lifecycle.is_restarting = True
        await server.lifecycle.stop()
        with closing(connect(server)) as client:
            assert server.accepted == 0
            await server.lifecycle.start()
            server.lifecycle.is_restarting = False
            assert await read_all(client) == POEM
        assert server.addresses == address


@every_server
async def test_a_shared_queue_is_left_to_the_others(make: ServerMaker) -> None:
    """A server whose socket other processes share accepts no more when it stops, nor closes theirs."""
    with socket.create_server(("127.0.0.1", 0)) as others:
        others.setblocking(False)
        async with make(endpoint=f"fd://{others.fileno()}", drain_timeout=60) as server:
            with closing(connect(server)) as client:
                assert await server.lifecycle.take_down() == []
                assert server.accepted == 0
                accepted, _ = await asyncio.get_running_loop().sock_accept(others)
                with closing(accepted):
                    accepted.sendall(b"ours")
                assert await read_all(client) == b"ours"


@every_server
async def test_a_stop_that_is_cancelled_leaves_nothing_open(make: ServerMaker) -> None:
    """When whoever stops it has no more patience, connections are aborted and sockets closed at once."""
    async with slowly(make(LONG_POEM, drain_timeout=60)) as server:
        address = address_of(server)
        with closing(connect(server, receive_buffer=SMALL)) as client:
            await read(client, 4096)
            stopping = asyncio.get_running_loop().create_task(server.stop())
            await server.draining.wait()
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
            await until(lambda: server.connections == 0)
            with socket.socket() as late:
                assert late.connect_ex(address) != 0
