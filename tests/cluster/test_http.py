"""The HTTP client of engines, and what the engine of etcd makes of servers that are none."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tamed.cluster._http import Answer, HttpClient
from tamed.cluster.engine import EngineError, open_engine
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


class Handler(BaseHTTPRequestHandler):
    """Answers as its server says; ``hangs up`` is what a server does with connections that are kept."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        if self.server.is_silent:
            self.server.end.wait(PATIENCE)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)
        self.close_connection = self.server.hangs_up

    def log_message(self, *arguments: Any) -> None:
        """Be quiet."""


class Server(ThreadingHTTPServer):
    """A server with one answer; ``place`` is its address."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.content = 200, b'{"a": 1}'
        self.asked = 0
        self.hangs_up = self.is_silent = False
        self.end = threading.Event()
        self.place: tuple[str, int] = ("127.0.0.1", self.server_address[1])
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def handle_error(self, *arguments: Any) -> None:
        """Be quiet: a client may have gone."""

    def close(self) -> None:
        """End it."""
        self.end.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Two servers."""
    made = [Server(), Server()]
    yield made
    for each in made:
        each.close()


async def post(client: HttpClient) -> Answer:
    """Send a request."""
    return await client.request("POST", "/", {})


async def test_connection_that_the_server_has_closed_is_opened_again(servers: list[Server]) -> None:
    """A connection is kept between requests; one that the server has closed meanwhile costs no failure."""
    client = HttpClient([servers[0].place], None, PATIENCE)
    servers[0].hangs_up = True
    for count in range(1, 4):
        assert await post(client) == (200, {"a": 1})
        assert servers[0].asked == count
    client.close()


async def test_cancelled_request_is_aborted(servers: list[Server]) -> None:
    """Its thread does not wait for the server any more, and sends nothing."""
    client = HttpClient([servers[0].place], None, 100 * PATIENCE)
    servers[0].is_silent = True
    task = asyncio.create_task(post(client))
    async with asyncio.timeout(PATIENCE):
        while not servers[0].asked:  # noqa: ASYNC110 - of a thread
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while any("tamed-cluster" in each.name and _waits(each) for each in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    client.close()


def _waits(thread: threading.Thread) -> bool:
    """Return whether a thread is in the middle of a request."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "_send":
            return True
        frame = frame.f_back
    return False


async def test_silent_server_is_left_for_the_next(servers: list[Server]) -> None:
    """A server that was too slow for the caller is asked last from then on."""
    client = HttpClient([each.place for each in servers], None, PATIENCE)
    servers[0].is_silent = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await post(client)
    assert await post(client) == (200, {"a": 1})
    assert servers[1].asked == 1
    servers[0].end.set()
    client.close()


@pytest.mark.parametrize(
    ("content", "data"),
    [(b"", {}), (b"no\njson", {"message": "no json"}), (b"[1]", {"message": "[1]"})],
)
async def test_answer_that_is_no_object_is_a_message(
    servers: list[Server], content: bytes, data: dict[str, Any]
) -> None:
    """An answer in HTML, as of a proxy, can be shown to the operator."""
    servers[0].content, servers[0].status = content, 502
    client = HttpClient([servers[0].place], None, PATIENCE)
    assert await post(client) == (502, data)
    client.close()


async def test_answer_that_is_too_long_is_refused(servers: list[Server]) -> None:
    """A server cannot fill the memory."""
    servers[0].content = b" " * (1024 * 1024 + 1)
    client = HttpClient([servers[0].place], None, PATIENCE)
    with pytest.raises(EngineError, match="the answer is too long"):
        await post(client)
    client.close()


@pytest.mark.parametrize(
    ("status", "content", "why"),
    [
        (404, b"404 page not found", "it has no /v3: it is not etcd, or older than 3.4; upgrade it"),
        (503, b'{"error": "no leader"}', "etcd refuses kv/range: no leader"),
        (
            500,
            b'{"error": {"message": "etcdserver: no space"}}',
            "etcd refuses kv/range: etcdserver: no space",
        ),
        (502, b"", "etcd refuses kv/range: HTTP 502"),
    ],
)
async def test_server_that_refuses_is_named(
    servers: list[Server], status: int, content: bytes, why: str
) -> None:
    """An old server, one without a leader, a full one and a proxy are one line; another one is asked next."""
    servers[0].status, servers[0].content = status, content
    places = ",".join(f"{host}:{port}" for host, port in (each.place for each in servers))
    engine = open_engine(f"etcd://{places}")
    with pytest.raises(EngineError) as raised:
        await engine.acquire("cron", "me", 60)
    assert str(raised.value) == why
    servers[1].content = b'{"kvs": [{"lease": "7", "value": "bWU="}]}'
    assert await engine.acquire("cron", "you", 60) == (None, "me")
    await engine.close()
