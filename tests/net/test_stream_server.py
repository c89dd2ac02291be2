import asyncio
import contextvars
import gc
import logging
import socket
from contextlib import closing, suppress

import pytest

from tamed.net.stream import StreamServer
from tests.net.poetry import (
    LONG_POEM,
    POEM,
    SMALL,
    connect,
    read,
    read_all,
    reset,
    slowly,
    stream_server,
    until,
)

pytestmark = pytest.mark.anyio


async def test_input_during_a_long_answer_is_thrown_away() -> None:
    """A client may go on sending, and end its side, while it reads."""
    async with slowly(stream_server(LONG_POEM)) as server:
        with closing(connect(server, receive_buffer=SMALL)) as client:
            received = bytearray()
            while len(received) < len(LONG_POEM):
                if len(received) < len(LONG_POEM) // 2:
                    await asyncio.get_running_loop().sock_sendall(client, b"more, please\n" * 100)
                elif len(received) < len(LONG_POEM) // 2 + 65536:
                    client.shutdown(socket.SHUT_WR)
                received += await read(client, 65536)
            assert await read_all(client) == b""
            assert bytes(received) == LONG_POEM


async def test_a_handler_that_raises_is_logged_with_its_peer(caplog: pytest.LogCaptureFixture) -> None:
    """Once, with the traceback; its connection is aborted, and the server goes on."""

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"almost")
        raise ValueError("no rhyme found")

    async with StreamServer("127.0.0.1:0", fail, name="poetry") as server:
        for _ in range(2):
            with closing(connect(server)) as client:
                peer = "{}:{}".format(*client.getsockname())
                await _read_or_reset(client)
            assert f"poetry failed to serve {peer}" in caplog.text
        await until(lambda: server.connections == 0)
    assert caplog.text.count("ValueError: no rhyme found") == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


async def _read_or_reset(client: socket.socket) -> None:
    with suppress(ConnectionResetError):
        await read_all(client)


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_a_peer_that_leaves_amid_a_conversation_is_one_line(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a handler raises because its peer left is not its fault, and told without a traceback."""
    caplog.set_level(logging.INFO, "tamed.net")

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)

    async with StreamServer("127.0.0.1:0", ask) as server:
        caplog.clear()
        client = connect(server)
        client.sendall(b"I would say")
        await until(lambda: server.connections == 1)
        reset(client) if how == "reset" else client.close()
        await until(lambda: server.accepted == 1 and server.connections == 0)
        await until(lambda: caplog.records)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "stream-server lost 127.0.0.1:" in caplog.text


async def test_the_errors_of_a_handlers_other_connections_are_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A ConnectionError is the peer's doing only if the peer is gone."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise ConnectionRefusedError("the database refuses")

    async with StreamServer("127.0.0.1:0", relay) as server:
        with closing(connect(server)) as client:
            await _read_or_reset(client)
    assert "Traceback" in caplog.text


async def test_handlers_are_not_lost_to_the_garbage_collector() -> None:
    """A handler that waits for something only it knows is kept alive."""
    waiting = asyncio.Event()

    async def wait_alone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.01, future.set_result, None)
        waiting.set()
        await future
        writer.write(b"done")

    async with StreamServer("127.0.0.1:0", wait_alone) as server:
        with closing(connect(server)) as client:
            await waiting.wait()
            gc.collect()
            assert await read_all(client) == b"done"


async def test_a_handler_may_close_by_itself() -> None:
    """Closing the writer, and waiting for that, is as good as returning."""

    async def polite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POEM)
        writer.close()
        await writer.wait_closed()

    async with StreamServer("127.0.0.1:0", polite) as server:
        with closing(connect(server)) as client:
            assert await read_all(client) == POEM
        await until(lambda: server.connections == 0)


async def test_handlers_do_not_share_their_context() -> None:
    """What a handler sets in its context is not seen by the one whose connection it made room for."""
    secret = contextvars.ContextVar("secret", default="none")
    seen = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(secret.get())
        secret.set("mine")
        writer.close()
        await writer.wait_closed()

    async with StreamServer("127.0.0.1:0", note, max_connections=1) as server:
        clients = [connect(server) for _ in range(3)]
        for client in clients:
            with closing(client):
                await read_all(client)
    assert seen == ["none"] * 3


async def test_the_readers_limit_can_be_set() -> None:
    """A line longer than ``limit`` is the reader's error, as in asyncio."""
    lengths = []

    async def measure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
        except ValueError:
            lengths.append("too long")

    async with StreamServer("127.0.0.1:0", measure, limit=10) as server:
        with closing(connect(server)) as client:
            client.sendall(b"x" * 100 + b"\n")
            await read_all(client)
    assert lengths == ["too long"]


async def test_a_handler_that_starts_no_coroutine_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A plain function in the place of a handler is an error at its first connection."""

    def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(POEM)

    async with StreamServer("127.0.0.1:0", plain) as server:  # type: ignore[arg-type]
        with closing(connect(server)) as client:
            await _read_or_reset(client)
    assert "TypeError" in caplog.text
