import asyncio
import logging
import re
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tamed.net.address_limit import AddressLimit
from tamed.net.server import Server
from tamed.net.stream import StreamServer
from tests.net.poetry import (
    LONG_POEM,
    POEM,
    SMALL,
    ServerMaker,
    address_of,
    connect,
    every_server,
    read,
    read_all,
    slowly,
    stream_server,
    until,
)

pytestmark = pytest.mark.anyio


def connect_from(host: str, server: Server) -> socket.socket:
    """Connect from one of the addresses of the loopback interface."""
    client = socket.create_connection(address_of(server), source_address=(host, 0))
    client.setblocking(False)
    return client


async def ended(client: socket.socket) -> bool:
    """Wait until the server has closed a connection on which it sent nothing."""
    with closing(client), suppress(ConnectionResetError):
        return await asyncio.get_running_loop().sock_recv(client, 1) == b""
    return True


@every_server
async def test_an_address_with_too_many_connections_is_refused_more(make: ServerMaker) -> None:
    """They are closed at once; other addresses are served, and the same one when it has closed one."""
    async with slowly(make(LONG_POEM, max_connections_per_address=2)) as server:
        clients = [connect(server, receive_buffer=SMALL) for _ in range(2)]
        for client in clients:
            await read(client, 100)
        assert all([await ended(connect(server)) for _ in range(3)])
        assert (server.connections, server.accepted, server.refused) == (2, 2, 3)
        with closing(connect_from("127.0.0.2", server)) as other:
            await read(other, 100)
        clients.pop().close()
        await until(lambda: server.connections == 1)
        with closing(connect(server)) as again:
            assert await read_all(again) == LONG_POEM
        clients.pop().close()
    assert server.refused == 3


@every_server
async def test_a_unix_socket_has_no_addresses_to_count(make: ServerMaker, tmp_path: Path) -> None:
    """Everybody comes from the same nowhere, so nobody is refused."""
    path = tmp_path / "poem.sock"
    async with make(LONG_POEM, endpoint=f"unix:{path}", max_connections_per_address=1) as server:
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in clients:
            client.connect(str(path))
            client.setblocking(False)
            assert await read(client, 100)
        for client in clients:
            client.close()
    assert server.refused == 0


async def test_both_limits_together() -> None:
    """The limit of all makes clients wait, and that of an address is looked at when they come in."""
    async with slowly(stream_server(LONG_POEM, max_connections=2, max_connections_per_address=1)) as server:
        first, second = connect_from("127.0.0.1", server), connect_from("127.0.0.2", server)
        await read(first, 100)
        await read(second, 100)
        waiting = connect_from("127.0.0.2", server)
        first.close()
        assert await ended(waiting)
        second.close()
        await until(lambda: server.connections == 0)
        with closing(connect_from("127.0.0.2", server)) as client:
            assert await read_all(client) == LONG_POEM


async def test_a_flood_is_reported_in_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """The first refusal is logged with the address, and the others together as a number."""
    stay = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stay.wait()

    async with StreamServer("127.0.0.1:0", wait, max_connections_per_address=1, name="poetry") as server:
        with closing(connect(server)):
            for _ in range(200):
                assert await ended(connect(server))
            assert server.refused == 200
        stay.set()
    assert caplog.messages[0] == "poetry refuses a connection from 127.0.0.1, which has 1 open"
    numbers = [re.fullmatch(r"poetry has refused (\d+) more", message) for message in caplog.messages[1:]]
    assert sum(int(number[1]) for number in numbers if number) == 199
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


async def test_a_limit_is_at_least_one() -> None:
    """Zero would be a server that serves nobody."""
    with pytest.raises(ValueError, match="max_connections_per_address must be at least 1, not 0"):
        stream_server(max_connections_per_address=0)


async def test_without_a_limit_nothing_is_refused() -> None:
    """It is the default."""
    async with stream_server(POEM) as server:
        for client in [connect(server) for _ in range(20)]:
            with closing(client):
                assert await read_all(client) == POEM
        assert server.refused == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%lo", "fe80::2", True),
    ],
)
async def test_which_addresses_count_as_one(one: str, other: str, same: bool) -> None:
    """IPv4 addresses each for itself, however written; IPv6 addresses by their /64 network."""
    taken: list[Any] = []
    limit = AddressLimit(1)
    limit.enter((one, 1))
    left, right = socket.socketpair()
    with left, right:
        limit.guard(lambda _, address: taken.append(address))(left.fileno(), (other, 2))
        if same:
            left.detach()  # it was closed
    limit.close()
    assert taken == ([] if same else [(other, 2)])
