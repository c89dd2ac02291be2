"""TLS handshakes that are not finished: their number, their time, and which one makes room."""

import asyncio
import logging
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trustme

from tamed.net.server import Server
from tests.net.poetry import POEM, ServerMaker, address_of, connect, every_server, read_all, until
from tests.net.test_server import certificate, trusting

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return a certificate authority."""
    return trustme.CA()


@pytest.fixture
def endpoint(authority: trustme.CA, tmp_path: Path) -> str:
    """Return an endpoint with a certificate."""
    return f"tls://127.0.0.1:0?cert={certificate(authority, tmp_path)}"


async def poem_from(server: Server, authority: trustme.CA) -> bytes:
    """Read the poem as a client that does all it should."""
    reader, writer = await asyncio.open_connection(
        *address_of(server), ssl=trusting(authority), server_hostname="localhost"
    )
    poem = await reader.read()
    writer.close()
    await writer.wait_closed()
    return poem


def is_open(client: socket.socket) -> bool:
    """Tell whether a connection, which gets nothing, was not closed."""
    try:
        return bool(client.recv(1))
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


@every_server
@pytest.mark.parametrize("words", [b"", b"\x16\x03\x01"], ids=["silent", "slow"])
@pytest.mark.parametrize(
    "limit", [{"max_tls_handshakes": 3}, {"max_connections": 3}], ids=["handshakes", "connections"]
)
async def test_the_oldest_makes_room(
    make: ServerMaker, endpoint: str, authority: trustme.CA, words: bytes, limit: dict[str, int]
) -> None:
    """One is aborted for one who comes, when it had time enough; the others are left alone."""
    async with make(endpoint=endpoint, **limit) as server:
        with ExitStack() as stack:
            crowd = [stack.enter_context(closing(connect(server))) for _ in range(3)]
            for client in crowd:
                client.send(words)
            await until(lambda: server.accepted == 3)
            assert await poem_from(server, authority) == POEM
            assert [is_open(client) for client in crowd] == [False, True, True]
        await until(lambda: server.connections == 0)


@every_server
async def test_a_handshake_that_is_finished_does_not_count(
    make: ServerMaker, endpoint: str, authority: trustme.CA
) -> None:
    """With one that may be unfinished, as many as one likes are served at once."""
    async with make(LONG, endpoint=endpoint, max_tls_handshakes=1) as server:
        assert await asyncio.gather(*(poem_from(server, authority) for _ in range(5))) == [LONG] * 5


@every_server
async def test_nobody_makes_room_who_is_served(
    make: ServerMaker, endpoint: str, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that reads slowly keeps its connection, and one that says nothing is aborted."""
    caplog.set_level(logging.INFO, "tamed")
    async with make(LONG, endpoint=endpoint, max_connections=2) as server:
        reader, writer = await asyncio.open_connection(
            *address_of(server), ssl=trusting(authority), server_hostname="localhost"
        )
        start = await reader.readexactly(1)
        with closing(connect(server)) as silent:
            host, port = silent.getsockname()
            await until(lambda: server.connections == 2)
            assert await poem_from(server, authority) == LONG
            assert not is_open(silent)
        assert start + await reader.read() == LONG
        writer.close()
        await writer.wait_closed()
    assert f"has aborted the unfinished TLS handshake of {host}:{port} to make room" in caplog.text


@every_server
async def test_the_time_of_a_handshake_is_limited(
    make: ServerMaker, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """From the connection to its end, whether something was sent or not."""
    caplog.set_level(logging.INFO, "tamed")
    async with make(endpoint=endpoint, tls_handshake_timeout=0.1) as server:
        for words in (b"", b"\x16\x03\x01"):
            with closing(connect(server)) as client:
                client.send(words)
                assert await read_all(client) == b""
        await until(lambda: server.accepted == 2 and server.connections == 0)
    assert "before it began: TimeoutError: it sent nothing for 0.1 s" in caplog.text


@every_server
async def test_a_client_that_leaves_without_a_word(
    make: ServerMaker, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged in a line and forgotten; nothing of TLS was made for it."""
    caplog.set_level(logging.INFO, "tamed")
    async with make(endpoint=endpoint) as server:
        connect(server).close()
        await until(lambda: server.accepted == 1 and server.connections == 0)
        await until(lambda: "before it began" in caplog.text)
    assert "before it began: ConnectionResetError: it has sent nothing" in caplog.text


LONG = POEM * 200
