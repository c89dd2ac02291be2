"""The stream of the page: what is sent, when it ends, and how many there may be."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tamed.ops.application import HostCheck, OpsApplication
from tamed.ops.observer import Observer
from tests.ops.views import STATUS, Told

pytestmark = pytest.mark.anyio


class Client:
    """A client of the stream, which reads as the test wants it to."""

    def __init__(self, app: OpsApplication) -> None:
        self._app = app
        self._leaves = asyncio.Event()
        self._requests = iter([{"type": "http.request", "body": b"", "more_body": False}])
        self.heads: list[MutableMapping[str, Any]] = []
        self.parts: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._events: deque[tuple[str, str]] = deque()
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def run(self, method: str = "GET") -> None:
        """Be served."""
        scope = {
            "type": "http",
            "method": method,
            "path": "/stream",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        await self._app(scope, self._receive, self._send)

    def leave(self) -> None:
        """Leave, or let the server drain: both look the same."""
        self._leaves.set()

    async def event(self) -> tuple[str, str]:
        """Return the next event and its data; comments and the time to retry are none."""
        while not self._events:
            part = await self.parts.get()
            found = re.finditer(rb"event: (\w+)\n((?:data: .*\n)+)\n", part["body"])
            self._events += [(event[1].decode(), event[2].decode()) for event in found]
        return self._events.popleft()

    async def _receive(self) -> dict[str, Any]:
        for request in self._requests:
            return request
        await self._leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self.may_read.wait()
        if message["type"] == "http.response.start":
            self.heads.append(message)
        else:
            self.parts.put_nowait(message)


@asynccontextmanager
async def opened(app: OpsApplication) -> AsyncIterator[Client]:
    """Open a stream, and let it end."""
    client = Client(app)
    task = asyncio.ensure_future(client.run())
    try:
        yield client
    finally:
        client.leave()
        await task


def serving(told: Told) -> tuple[OpsApplication, Observer]:
    """Return the application."""
    observer = Observer(told, "bare")
    return OpsApplication(told, HostCheck(), observer), observer


async def test_sections_are_sent_as_they_change() -> None:
    """First all; then only what is another one, and the records that have come."""
    told = Told()
    told.logs("the first")
    app, observer = serving(told)
    async with opened(app) as client:
        part = (await client.parts.get(), await client.parts.get())[1]
        names = re.findall(rb"event: (\w+)", part["body"])
        assert names == [b"health", b"workers", b"services", b"reload", b"events", b"log"]
        assert b"the first" in part["body"]
        told.logs("the second")
        await observer.look()
        events = [await client.event(), await client.event()]
        assert [name for name, _ in events] == ["workers", "more"]  # the share of CPU is known by now
        data = events[-1][1]
        assert "the second" in data
        assert "the first" not in data
        told.status_now = STATUS | {"state": "degraded"}
        await observer.look()
        name, data = await client.event()
        assert (name, "degraded" in data) == ("health", True)


async def test_a_slow_client_gets_the_newest_and_nothing_is_kept_for_it() -> None:
    """While it reads nothing, sections and records change; it gets the last ones."""
    told = Told()
    app, observer = serving(told)
    async with opened(app) as client:
        await client.parts.get()
        await client.parts.get()
        client.may_read.clear()
        for number in range(500):
            told.logs(f"number {number}.")
            await observer.look()
            await asyncio.sleep(0)
        client.may_read.set()
        data = ""
        while "number 499." not in data:
            data += (await client.event())[1]
    assert len(re.findall(r"number \d+\.", data)) <= 302


async def test_stream_ends_when_the_server_drains() -> None:
    """With a last part, so that the answer is whole."""
    app, _ = serving(Told())
    async with opened(app) as client:
        await client.parts.get()
        client.leave()
        while (part := await client.parts.get()).get("more_body"):
            continue
        assert part["body"] == b""


async def test_there_is_a_limit_of_streams() -> None:
    """The next one is answered that there are too many, until one of them leaves."""
    app, _ = serving(Told())
    clients = [Client(app) for _ in range(32)]
    tasks = [asyncio.ensure_future(client.run()) for client in clients]
    for client in clients:
        await client.parts.get()
    refused = Client(app)
    await refused.run()
    assert refused.heads[0]["status"] == 503
    clients[0].leave()
    await tasks[0]
    async with opened(app) as client:
        await client.parts.get()
        assert client.heads[0]["status"] == 200
    for client in clients:
        client.leave()
    await asyncio.gather(*tasks)


async def test_head_gets_no_stream() -> None:
    """But what kind of answer there would be."""
    app, _ = serving(Told())
    client = Client(app)
    await client.run("HEAD")
    assert (b"content-type", b"text/event-stream") in client.heads[0]["headers"]
    assert client.parts.get_nowait() == {"type": "http.response.body", "body": b""}
