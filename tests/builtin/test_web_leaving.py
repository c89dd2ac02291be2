"""Clients of the web that leave, and those that stay while it stops: what their applications hear of it."""

import asyncio
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tamed.builtin.web import Options, web
from tamed.net.server import Server
from tamed.plugins.values import Duration
from tamed.service.service import Service
from tamed.testing.clock import SteppedClockLoop
from tamed.testing.running import Running, Served, running
from tamed.web.asgi import ClientLeft
from tests.builtin.test_web import get, module, raw, root, served
from tests.net.poetry import reset
from tests.patience import PATIENCE
from tests.process.clients import dial

__all__ = ["module", "root"]  # fixtures


def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def connections(server: Served[Service]) -> int:
    """Return how many connections the service counts, as the status does."""
    return sum(part.connections for part in server.service.walk() if isinstance(part, Server))


def accepted(server: Served[Service]) -> int:
    """Return how many connections the service has accepted, as the status does."""
    return sum(part.accepted for part in server.service.walk() if isinstance(part, Server))


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log has of faults."""
    return [each.getMessage() for each in caplog.records if each.levelno > logging.INFO]


class Endless:
    """A WSGI application whose answers do not end, and that counts those that were closed."""

    def __init__(self, pause: float = 0.01) -> None:
        self.closed = 0
        self._pause = pause

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/end":
            start_response("200 OK", [])
            return iter([b"the end"])
        start_response("200 OK", [("content-type", "text/plain")])
        return self._ticks()

    def has_closed(self, count: int) -> bool:
        return self.closed == count

    def _ticks(self) -> Iterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                time.sleep(self._pause)
        finally:
            self.closed += 1


def test_threads_come_back_when_clients_of_endless_answers_leave(
    module: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections are counted while they are there; then each iterable is closed, and others are served."""
    app = module.app = Endless()  # type: ignore[attr-defined]
    with served(app="web_test_app:app", threads=3) as server:
        for leave in (reset, socket.socket.close):
            clients = [server.connect() for _ in range(3)]
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                while b"tick" not in client.recv(1000):
                    pass
            assert connections(server) == 3
            wanted = app.closed + 3
            for client in clients:
                leave(client)
            until(partial(app.has_closed, wanted))
            assert get(server, "/end")[2] == "the end"
        until(lambda: connections(server) == 0)
    assert faults(caplog) == []


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["reset", "end"])
def test_a_client_may_leave_in_the_middle_of_a_file(
    root: Path, caplog: pytest.LogCaptureFixture, leave: Callable[[Any], None]
) -> None:
    """That is no fault, and the file is not held open."""
    with (root / "large").open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    with served(root) as server:
        client = server.connect()
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        leave(client)
        until(lambda: connections(server) == 0)
    assert faults(caplog) == []
    assert not [each for each in Path("/proc/self/fd").iterdir() if str(each.resolve()).endswith("/large")]


def test_clients_that_do_not_wait_for_a_thread_cost_none(module: ModuleType) -> None:
    """What a thread never began for a client that has left is not begun."""
    app = module.app = Endless()  # type: ignore[attr-defined]
    with served(app="web_test_app:app", threads=1) as server:
        first = server.connect()
        first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while b"tick" not in first.recv(1000):
            pass
        for _ in range(20):
            with server.connect() as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: connections(server) == 1)
        first.close()
        assert get(server, "/end")[2] == "the end"
    assert app.closed >= 1


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["reset", "end"])
def test_half_a_body_is_not_taken_for_the_whole(
    module: ModuleType, caplog: pytest.LogCaptureFixture, leave: Callable[[Any], None]
) -> None:
    """A WSGI application that reads on gets an error when the client has left, which is no fault of its."""
    heard: list[object] = []

    def reading(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            heard.append(environ["wsgi.input"].read())
        except OSError as error:
            heard.append(error)
            raise
        start_response("200 OK", [])
        return []

    module.app = reading  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        client = server.connect()
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        until(lambda: connections(server) == 1)
        leave(client)
        until(lambda: heard)
    assert isinstance(heard[0], OSError)
    assert faults(caplog) == []


def test_wsgi_is_spoken_as_it_is_written(module: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """PEP 3333: bodies by all ways of reading, `write`, several headers of a name, and no ambiguous ones."""

    def everything(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"]
        lines = [body.read(3), body.readline(), *body.readlines(4), *body]
        write = start_response("201 Created", [("X-Said", environ.get("HTTP_X_TWO", "")), ("X-Two", "a")])
        write(b"written ")
        assert "HTTP_PROXY" not in environ
        environ["wsgi.errors"].write("told\n")
        return [
            b"",
            repr(lines).encode(),
            b" ",
            environ["PATH_INFO"].encode("latin-1"),
            environ["HTTP_COOKIE"].encode(),
        ]

    module.app = everything  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        answer = raw(
            server,
            b"POST /%C3%A4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"X-Two: 1\r\nX-Two: 2\r\nCookie: a=1\r\nCookie: b=2\r\n"
            b"Proxy: evil\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabcde\nfg\r\n6\r\nh\nij\nk\r\n0\r\n\r\n",
        )
    assert answer.startswith(b"HTTP/1.1 201 Created\r\n")
    assert b"x-said: 1,2\r\n" in answer
    assert b"written " in answer
    assert b"[b'abc', b'de\\n', b'fgh\\n', b'ij\\n', b'k']" in answer
    assert "/ä".encode() in answer
    assert b"a=1; b=2" in answer
    assert capsys.readouterr().err == "told\n"


def _late(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"part"
    raise ValueError("no rhyme")


def _again(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    try:
        int("no rhyme")
    except ValueError:
        start_response("500 No Rhyme", [], sys.exc_info())
    return [b"instead"]


@pytest.mark.parametrize(
    ("application", "status", "fault"),
    [
        (lambda *_: [b"x"], b"500", "without calling start_response"),
        (lambda _, start_response: start_response("200 OK", []) and ["x"], b"500", "not with str"),
        (lambda *_: 1 / 0, b"500", "division by zero"),
        (_late, b"200", "no rhyme"),
        (_again, b"500 Internal Server Error\r\n", ""),
    ],
    ids=["no head", "no bytes", "raises", "raises late", "thinks again"],
)
def test_faults_of_wsgi_applications_are_reported(
    module: ModuleType, caplog: pytest.LogCaptureFixture, application: Any, status: bytes, fault: str
) -> None:
    """With a traceback, an answer that says so if none was begun, and an end that is none if one was."""
    module.app = application  # type: ignore[attr-defined]
    with served(app="web_test_app:app", wsgi=True, threads=1) as server:
        for _ in range(3):
            answer = raw(server, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert fault == "" or not answer.endswith(b"0\r\n\r\n")
    assert fault in caplog.text


def test_an_application_that_gives_up_because_its_client_left_has_no_fault(
    module: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """It may raise whatever it likes when it was told."""
    gone = threading.Event()

    async def strict(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("no lifespan here")
        while (message := await receive())["type"] != "http.disconnect":
            assert message["type"] == "http.request"
        gone.set()
        raise ValueError("nobody listens")

    module.app = strict  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        with server.connect() as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhalf")
            until(lambda: connections(server) == 1)
        assert gone.wait(PATIENCE)
    assert faults(caplog) == []


def answer_in_a_drain(begun: asyncio.Event, passes: float) -> bytes:
    """Return the answer of ``web_test_app:app`` to a request that has ``begun`` when a drain of 8 s begins.

    The clock stands still until the drain begins, and then moves by ``passes`` seconds. By a real clock, on a
    busy machine, the drain could be over before an application that hears of its middle has answered.
    """

    async def fetch(server: Running[Service]) -> bytes:
        return await server.fetch(send=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    async def advance(server: Server) -> None:
        await server.draining.wait()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedClockLoop)
        await loop.advance(passes)

    async def main() -> bytes:
        async with running(web(Options(app="web_test_app:app", port=0)), drain_timeout=8.0) as server:
            (part,) = (each for each in server.service.walk() if isinstance(each, Server))
            answer = asyncio.create_task(fetch(server))
            await begun.wait()
            clock = asyncio.create_task(advance(part))
        await clock
        return await answer

    with asyncio.Runner(loop_factory=SteppedClockLoop) as runner:
        return runner.run(main())


@pytest.mark.parametrize("ends", [True, False], ids=["says good-bye", "breaks off"])
def test_an_endless_answer_hears_of_a_drain_in_its_middle(
    module: ModuleType, caplog: pytest.LogCaptureFixture, ends: bool
) -> None:
    """The event is that of a client that left. What it answers arrives, and no answer is no fault."""
    begun = asyncio.Event()
    heard_at: list[float] = []

    async def news(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("no lifespan here")
        await receive()
        hearing = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not hearing.done():
            await send({"type": "http.response.body", "body": b"news\n", "more_body": True})
            begun.set()
            await asyncio.wait([hearing], timeout=0.5)
        heard_at.append(asyncio.get_running_loop().time())
        assert hearing.result()["type"] == "http.disconnect"
        if ends:
            await send({"type": "http.response.body", "body": b"bye"})

    module.app = news  # type: ignore[attr-defined]
    answer = answer_in_a_drain(begun, 4.0)
    assert answer.endswith(b"bye\r\n0\r\n\r\n" if ends else b"news\n\r\n")
    assert heard_at == [4.0]
    assert faults(caplog) == []


def test_an_answer_that_takes_its_time_is_not_disturbed_by_a_drain(module: ModuleType) -> None:
    """An application that does not listen goes on beyond the middle, and its answer is complete."""
    begun = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("no lifespan here")
        await receive()
        begun.set()
        await asyncio.sleep(7.5)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    module.app = slow  # type: ignore[attr-defined]
    assert answer_in_a_drain(begun, 7.5).endswith(b"\r\n\r\ndone")


def test_a_client_that_leaves_behind_a_pipelined_request_is_noticed(module: ModuleType) -> None:
    """The application that answers the first request learns of it, and the second one is not begun."""
    asked: list[str] = []
    heard: list[str] = []

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        asked.append(scope["path"])
        while (message := await receive())["type"] != "http.disconnect":
            assert message["body"] == b"x"
        heard.append(scope["path"])

    module.app = waiting  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        with server.connect() as client:
            client.sendall(b"POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
            until(lambda: asked)
            client.sendall(b"xGET /second HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: heard)
    assert (asked, heard) == (["/first"], ["/first"])


def test_an_answer_that_is_not_taken_is_not_kept(root: Path) -> None:
    """The connection is cut, and its file closed."""
    (root / "long").write_bytes(bytes(32 << 20))
    with served(root, stall=Duration("200ms")) as server, server.connect() as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: accepted(server) and not connections(server))
        with suppress(ConnectionResetError):
            assert len(client.makefile("rb").read()) < 32 << 20


def test_an_application_that_only_sends_does_not_hold_the_loop_and_ends(
    module: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """Others are answered meanwhile; `send` raises in the end, which is no fault of the application."""
    raised: list[OSError] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("no lifespan here")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while scope["path"] == "/endless":
                await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        except OSError as error:
            raised.append(error)
            raise
        await send({"type": "http.response.body", "body": b"the end"})

    module.app = application  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        client = dial(server.address())
        client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100)
        reset(client)
        assert get(server, "/end")[2] == "the end"
        until(lambda: raised)
    assert isinstance(raised[0], ClientLeft)
    assert faults(caplog) == []
