"""TLS handshakes that are not finished: their number, their time, and which one makes room."""

import asyncio
import logging
import socket
import ssl
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest
import trustme

from tamed.net.server import Server
from tests.net.poetry import (
    POEM,
    ServerMaker,
    address_of,
    connect,
    every_server,
    protocol_server,
    reply_server,
    stream_server,
    until,
)
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


async def poem_from(server: Server, authority: trustme.CA, address: str = "127.0.0.1") -> bytes:
    """Read the poem as a client, of this address, that does all it should."""
    reader, writer = await asyncio.open_connection(
        *address_of(server),
        ssl=trusting(authority),
        server_hostname="localhost",
        local_addr=(address, 0),
    )
    poem = await reader.read()
    writer.close()
    await writer.wait_closed()
    return poem


def hello() -> bytes:
    """Return what a client of TLS says first."""
    said = ssl.MemoryBIO()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return said.read()


def is_open(client: socket.socket) -> bool:
    """Tell whether a connection, of which nothing is wanted, was not closed."""
    try:
        while client.recv(1 << 16):
            pass
    except BlockingIOError:
        return True
    except ConnectionResetError:
        pass
    return False


HALF = hello()[:20]


@pytest.mark.parametrize(
    ("make", "words", "limit"),
    [
        (stream_server, b"", {"max_connections": 3}),
        (protocol_server, HALF, {"max_connections": 3}),
        (reply_server, hello(), {"max_connections": 3}),
        (reply_server, hello(), {"max_tls_handshakes": 3}),
    ],
    ids=["silent", "half", "whole", "handshakes"],
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


@pytest.mark.parametrize(
    ("make", "case"),
    [
        (stream_server, (HALF, 1, "127.0.0.2")),
        (protocol_server, (HALF, 3, "127.0.0.9")),
        (reply_server, (hello(), 1, "127.0.0.9")),
        (stream_server, (hello(), 3, "127.0.0.9")),
    ],
    ids=["half, the same", "half, another", "whole, one", "whole, three"],
)
async def test_a_crowd_keeps_nobody_waiting(
    make: ServerMaker, endpoint: str, authority: trustme.CA, case: tuple[bytes, int, str]
) -> None:
    """However many are there: a client of another address, or whose hello is whole, gets in before them."""
    words, addresses, address = case
    async with make(endpoint=endpoint, max_tls_handshakes=40) as server:
        with ExitStack() as stack:
            crowd = [
                stack.enter_context(closing(connect(server, address=f"127.0.0.{2 + number % addresses}")))
                for number in range(250)
            ]
            for client in crowd:
                client.send(words)
            assert await poem_from(server, authority, address) == POEM
            # So many are waited for, or wait. If it had waited for its turn, 40 would be left at most.
            assert sum(is_open(client) for client in crowd) > 40
        await until(lambda: server.connections == 0)


class LeapingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can leap, as if something had held it: what is due then runs in one iteration."""

    leap = 0.0

    def time(self) -> float:
        """Return the time of this loop's clock, in seconds."""
        return super().time() + self.leap


def reached(server: Server, number: int) -> bool:
    """Tell whether so many have been accepted."""
    return server.accepted == number


def test_a_place_that_becomes_free_too_late_goes_to_nobody(endpoint: str) -> None:
    """A client's deadline passes in the iteration of the loop in which another makes room for it."""
    faults: list[dict[str, object]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, LeapingLoop)
        loop.set_exception_handler(lambda _, fault: faults.append(fault))
        async with reply_server(endpoint=endpoint, max_tls_handshakes=1) as server:
            with ExitStack() as stack:
                for number in (1, 2):
                    client = stack.enter_context(closing(connect(server, address=f"127.0.0.{1 + number}")))
                    client.send(hello())
                    await until(partial(reached, server, number))
                    for _ in range(20):  # its hello is read, and it has the place or waits for it
                        await asyncio.sleep(0)
                loop.leap = 20
                await until(lambda: server.connections == 0)

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(main())
    assert faults == []


@every_server
async def test_clients_of_one_address_wait_for_each_other(
    make: ServerMaker, endpoint: str, authority: trustme.CA
) -> None:
    """Though they have all places and many wait, none of those who do all they should is aborted."""
    async with make(endpoint=endpoint, max_tls_handshakes=3) as server:
        assert await asyncio.gather(*(poem_from(server, authority) for _ in range(12))) == [POEM] * 12


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
        for words in (b"", HALF, hello()):
            with closing(connect(server)) as client:
                client.send(words)
                await until(lambda client=client: not is_open(client))  # type: ignore[misc]
        await until(lambda: server.accepted == 3 and server.connections == 0)
    assert "before it began: TimeoutError: it sent no hello within 0.1 s" in caplog.text


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
    assert "before it began: ConnectionResetError: it sent nothing" in caplog.text


LONG = POEM * 200
