import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from tamed.builtin._relay import Relay, Stream, connect, connect_unix, open_stream
from tamed.net.bind import Address
from tamed.net.endpoint import UnixEndpoint
from tamed.net.stream import StreamServer
from tests.builtin.streams import Handler, address, connected, echo, reset, server, tell_the_sum, until

pytestmark = [pytest.mark.anyio, pytest.mark.both_loops]

GENEROUS = (60.0, 60.0)
MUCH = bytes(range(256)) * 32768  # 8 MB


class Relaying:
    """A server that relays to a target, and what became of each connection."""

    def __init__(self, target: StreamServer, timeouts: tuple[float, float]) -> None:
        self.target = target
        self.timeouts = timeouts
        self.relays: list[Relay] = []
        self.endings: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = await connect(Address(self.target.listeners[0].sockets[0].family, address(self.target)))
        relay = Relay(Stream(reader, writer), await open_stream(sock), *self.timeouts)
        self.relays.append(relay)
        self.endings.append(await relay.run())


@asynccontextmanager
async def relaying(
    handler: Handler = echo, timeouts: tuple[float, float] = GENEROUS, endpoint: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[StreamServer, Relaying]]:
    """Run a target, and a server that relays to it."""
    async with server(handler) as target:
        relaying = Relaying(target, timeouts)
        async with server(relaying, endpoint) as front:
            yield front, relaying


async def test_bytes_go_both_ways_at_once() -> None:
    """More than all buffers hold; the counts are exact, and the end is a clean one."""
    async with relaying() as (front, told), connected(front) as client:

        async def send() -> None:
            await client.send(MUCH)
            client.writer.write_eof()

        sending = asyncio.create_task(send())
        assert await client.read_all() == MUCH
        await sending
        await until(lambda: told.endings)
    assert told.endings == ["closed"]
    assert (told.relays[0].sent, told.relays[0].received) == (len(MUCH), len(MUCH))


async def test_the_end_of_one_direction_is_passed_on() -> None:
    """By the client, whose answer comes after it; and by the target, which still takes what comes."""
    async with relaying(tell_the_sum) as (front, told), connected(front) as client:
        await client.send(b"sun")
        client.writer.write_eof()
        assert await client.read_all() == b"3 bytes"
    received: list[bytes] = []

    async def end_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that is all")
        writer.write_eof()
        received.append(await reader.read())

    async with relaying(end_first) as (front, told), connected(front) as client:
        assert await client.read_all() == b"that is all"
        await client.send(b"well then")
        client.writer.write_eof()
        await until(lambda: told.endings)
    assert received == [b"well then"]
    assert told.endings == ["closed"]


async def test_a_side_that_takes_nothing_makes_the_other_wait() -> None:
    """The buffer for it is bounded: the sender waits."""
    enough = asyncio.Event()

    async def take_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await enough.wait()

    async with relaying(take_nothing) as (front, told), connected(front) as client:
        client.writer.write(MUCH * 4)
        before = -1
        while client.writer.transport.get_write_buffer_size() != before:
            before = client.writer.transport.get_write_buffer_size()
            await asyncio.sleep(0.2)
        assert before > len(MUCH)
        assert told.relays[0].sent < 2 * len(MUCH)
        enough.set()


@pytest.mark.parametrize("half_closed", [False, True])
async def test_nothing_that_moves_ends_it(half_closed: bool) -> None:
    """Each limit for itself: while both sides are open, and when one has ended."""
    timeouts = (60.0, 0.05) if half_closed else (0.05, 60.0)
    forever = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await forever.wait()

    async with relaying(say_nothing, timeouts) as (front, told), connected(front) as client:
        if half_closed:
            client.writer.write_eof()
        assert await client.read_all() == b""
        await until(lambda: told.endings)
        forever.set()
    assert told.endings == ["nothing moved for 0.05 s"]


async def test_what_moves_is_not_idle() -> None:
    """A conversation may last longer than the limit."""
    async with relaying(timeouts=(2.0, 2.0)) as (front, _), connected(front) as client:
        for _ in range(5):
            await client.send(b"x")
            await client.expect(b"x")
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("who", ["client", "target"])
async def test_a_reset_resets_the_other_side(who: str) -> None:
    """A reset is not forwarded as an end of data."""
    gone: list[bool] = []

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if who == "target":
            reset(writer)
            return
        try:
            gone.append(await reader.read() == b"")
        except ConnectionResetError:
            gone.append(True)

    async with relaying(watch) as (front, told), connected(front) as client:
        if who == "target":
            assert await client.read_all() == b""
        else:
            await until(lambda: told.relays)
            reset(client.writer)
            await until(lambda: gone)
        await until(lambda: told.endings)
    assert told.endings == ["Connection reset by peer"]


async def test_a_connection_that_is_gone_before_it_began() -> None:
    """A relay between two of which one is closed already ends at once."""

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        async with server() as target:
            await Relaying(target, GENEROUS)(reader, writer)
        done.set()

    done = asyncio.Event()
    async with server(late) as front, connected(front) as client:
        assert await client.read_all() == b""
        await done.wait()


@pytest.mark.parametrize("handler", [echo, tell_the_sum])
async def test_tls_on_the_clients_side(
    tmp_path: Path, handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    """Bytes go both ways; a client that ends a TLS connection has ended it, and the target is told."""
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    async with (
        relaying(handler, endpoint=f"tls://127.0.0.1:0?cert={pem}") as (front, told),
        connected(front, ssl=context, server_hostname="localhost") as client,
    ):
        await client.send(MUCH[:100_000])
        if handler is echo:
            await client.expect(MUCH[:100_000])
        client.writer.close()
        await until(lambda: told.endings)
    assert told.relays[0].sent == 100_000


async def test_unix_targets(tmp_path: Path) -> None:
    """A path, a name without a file, and nobody there."""
    for path in (str(tmp_path / "x.sock"), f"@tamed-test-{tmp_path}"):
        endpoint = UnixEndpoint(path)
        async with server(tell_the_sum, str(endpoint)):
            stream = await open_stream(connect_unix(endpoint))
            stream.writer.write(b"sun")
            stream.writer.write_eof()
            assert await stream.reader.read() == b"3 bytes"
            stream.writer.close()
            await stream.writer.wait_closed()
        with pytest.raises(OSError, match=r"No such file|refused"):
            connect_unix(endpoint)


async def test_a_target_that_has_said_all_closes_a_client_of_tls(tmp_path: Path) -> None:
    """It gets the whole answer and then the end, which it may be waiting for."""
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(3) + MUCH)

    async with (
        relaying(answer, endpoint=f"tls://127.0.0.1:0?cert={pem}") as (front, told),
        connected(front, ssl=context, server_hostname="localhost") as client,
    ):
        await client.send(b"sun")
        assert await client.read_all() == b"sun" + MUCH
        client.writer.close()
        await until(lambda: told.endings)
    assert told.endings == ["closed"]
