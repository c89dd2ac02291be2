"""Connections of the web while other workers serve already: the gate is shut, and tests move the clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, NamedTuple, cast

import pytest

from tamed.builtin.web import Options, web
from tamed.net.listen import current_environment
from tamed.net.proxy_header import Network
from tamed.net.server import Server
from tamed.plugins.values import Duration
from tamed.testing.clock import SteppedClockLoop
from tamed.testing.running import running
from tests.builtin.test_web import module

__all__ = ["module"]  # a fixture

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class LateLoop(SteppedClockLoop):
    """An event loop that something blocks for ``late`` seconds."""

    late = 0.0

    def time(self) -> float:
        """Return the time, with that of the block."""
        return super().time() + self.late

    def block(self, seconds: float) -> None:
        """Let so much time pass in a callback."""
        self.late += seconds


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run these tests on that loop."""
    return "asyncio", {"loop_factory": LateLoop}


class Client(NamedTuple):
    """A connection to a server."""

    server: Server
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self) -> bytes:
        """Send a request; return the answer up to its last chunk."""
        self.writer.write(GET)
        return await self.reader.readuntil(b"0\r\n\r\n")

    async def replace_server(self) -> "asyncio.Task[None]":
        """Begin the stop of a worker that others have replaced."""
        current_environment().gate.shut()
        stopping = asyncio.create_task(self.server.stop())
        await self.server.draining.wait()
        return stopping


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[Client]:
    """Serve the application of the module, and connect; half of the drain time are 50 seconds."""
    options = {"app": "web_test_app:app", "port": 0, **options}
    async with running(web(Options(**options)), drain_timeout=100.0) as service:
        reader, writer = await service.connect()
        (server,) = (part for part in service.service.walk() if isinstance(part, Server))
        try:
            yield Client(server, reader, writer)
        finally:
            writer.close()  # the clock stands still: a server that stops would wait for its deadline


async def short(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"verse"})


def clock() -> LateLoop:
    """Return the running loop."""
    return cast(LateLoop, asyncio.get_running_loop())


async def test_a_connection_is_kept_if_the_begun_answer_has_promised_it(module: ModuleType) -> None:
    """The client may send its next request at once; the answer to that one announces the close."""
    is_free = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await is_free.wait()
        await send({"type": "http.response.body", "body": b"verse"})

    module.app = slow  # type: ignore[attr-defined]
    async with connected() as client:
        client.writer.write(GET)
        head = await client.reader.readuntil(b"\r\n\r\n")
        stopping = await client.replace_server()
        is_free.set()
        assert b"connection: close" not in head + await client.reader.readuntil(b"0\r\n\r\n")
        assert b"connection: close" in await client.ask()
        assert await client.reader.read() == b""
        client.writer.close()
        await stopping


async def test_a_silent_client_is_closed_in_the_middle_of_the_drain(module: ModuleType) -> None:
    """However long its keep-alive time: the rest of the drain is for answers."""
    module.app = short  # type: ignore[attr-defined]
    async with connected(keep_alive=Duration("1h")) as client:
        await client.ask()
        stopping = await client.replace_server()
        end = asyncio.create_task(client.reader.read())
        await clock().advance(49)
        assert not end.done()
        await clock().advance(1)
        assert await end == b""
        await stopping


@pytest.mark.parametrize("proxies", [[], [Network.parse("127.0.0.1")]], ids=["direct", "by a proxy"])
async def test_a_new_connection_has_its_whole_time_for_a_request(
    module: ModuleType, proxies: list[Network]
) -> None:
    """Nothing was sent on it when the worker was replaced."""
    module.app = short  # type: ignore[attr-defined]
    async with connected(proxy_from=proxies, head_timeout=Duration("20s")) as client:
        stopping = await client.replace_server()
        end = asyncio.create_task(client.reader.read())
        await clock().advance(19)
        assert not end.done()
        await clock().advance(1)
        assert await end == b""
        await stopping


async def test_a_request_that_came_while_the_loop_was_blocked_is_answered(module: ModuleType) -> None:
    """It is in the kernel when the keep-alive time is over."""
    module.app = short  # type: ignore[attr-defined]
    async with connected(keep_alive=Duration("5s")) as client:
        await client.ask()
        loop = clock()
        loop.call_at(4.0, loop.block, 10)
        loop.call_at(4.5, client.writer.write, GET)
        await loop.advance(4)
        assert b"verse" in await client.reader.readuntil(b"0\r\n\r\n")
