"""HTTP/2 of the web: requests and answers, limits, floods, and how connections end."""

import asyncio
import copy
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tamed.net.server import Server
from tamed.plugins.values import Duration, Size
from tamed.service.service import Service
from tamed.testing.running import Served
from tests.builtin.http2_client import Http2Client
from tests.builtin.test_web import classic, get, module, raw, served
from tests.builtin.test_web_leaving import connections, faults, until
from tests.net.poetry import reset
from tests.patience import PATIENCE

__all__ = ["module"]  # a fixture

START: dict[str, Any] = {"type": "http.response.start", "status": 200}


@contextmanager
def client_of(server: Served[Service], *, reads: bool = True) -> Iterator[Http2Client]:
    """Open a connection by prior knowledge."""
    with server.connect() as sock, Http2Client(sock, reads=reads) as client:
        yield client


class Application:
    """Answers with what it was asked, and keeps what it hears; `free` holds its answers up."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.heard: list[str] = []
        self.taken = 0  # bytes of bodies
        self.reads = threading.Event()
        self.free = threading.Event()
        self.reads.set()
        self.free.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("no lifespan here")
        self.scopes.append(scope)
        await self._wait(self.reads)
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.heard.append(scope["path"])
                return
            size += len(message["body"])
            self.taken += len(message["body"])
            if not message["more_body"]:
                break
        await self._wait(self.free)
        await self.answer(scope, send, b"%s %d" % (scope["path"].encode(), size))

    def has_heard(self, count: int) -> bool:
        return len(self.scopes) == count

    async def answer(self, scope: Any, send: Any, body: bytes) -> None:
        await send(START | {"headers": [(b"X-Verse", b"busy"), (b"Connection", b"close")]})
        await send({"type": "http.response.body", "body": body})

    async def _wait(self, event: threading.Event) -> None:
        while not event.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)


@pytest.fixture
def app(module: ModuleType) -> Application:
    """Make an application that the server can be told to serve."""
    found = module.app = Application()  # type: ignore[attr-defined]
    return found


def serving(**options: Any) -> Any:
    """Serve the application over HTTP/2, too."""
    return served(app="web_test_app:app", http2=True, **options)


def test_requests_are_answered_on_one_connection(app: Application, caplog: pytest.LogCaptureFixture) -> None:
    """At the same time, in any order; the scope is that of ASGI, and each has its line in the access log."""
    caplog.set_level(logging.INFO)
    with serving() as server, client_of(server) as client:
        app.free.clear()
        cookies = ("cookie", "a=1"), ("cookie", "b=2")
        numbers = [client.request(f"/{n}?q=1", "POST", *cookies, ends=False) for n in range(10)]
        for number in reversed(numbers):
            client.send_body(number, b"verse")
        until(lambda: len(app.scopes) == 10)
        app.free.set()
        answers = [client.answer(number) for number in numbers]
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"/%d 5" % n) for n in range(10)]
    assert set(answers[0].headers) == {"date", "x-verse"}
    scope = app.scopes[0]
    assert (scope["http_version"], scope["scheme"], scope["method"]) == ("2", "http", "POST")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/0", b"/0", b"q=1")
    assert scope["headers"] == [(b"host", b"x"), (b"cookie", b"a=1; b=2")]
    assert '"POST /3?q=1 HTTP/2" 200' in caplog.text


def test_both_versions_are_served_at_one_endpoint(app: Application) -> None:
    """The client's first bytes tell, in however many pieces they come; without the option there is one."""
    with serving() as server:
        assert get(server, "/old")[2] == "/old 0"
        with server.connect() as sock:
            for piece in (b"PRI * HT", b"TP/2.0\r\n\r\nSM", b"\r\n\r\n" + SettingsFrame(0).serialize()):
                sock.sendall(piece)
            assert sock.recv(9)[3] == 4  # SETTINGS
        assert raw(server, b"PRI / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400")
    with served(app="web_test_app:app") as server:
        assert raw(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_an_application_may_copy_a_scope(app: Application) -> None:
    """With all that is in it, as middleware does that changes its copy."""

    async def answer(scope: Any, send: Any, body: bytes) -> None:
        copied = copy.deepcopy(scope)
        await Application.answer(app, copied, send, copied["http_version"].encode())

    app.answer = answer  # type: ignore[method-assign]
    with serving() as server, client_of(server) as client:
        assert get(server, "/")[2] == "1.1"
        assert client.get("/").body == b"2"


def test_bodies_of_any_size_are_received_and_sent(app: Application, module: ModuleType) -> None:
    """As each side has room for them, with trailers and early hints, and none behind HEAD."""
    large = b"verse" * 500_000

    async def everything(scope: Any, send: Any, body: bytes) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
        await send(START | {"headers": [(b"trailer", b"x-end")], "trailers": True})
        await send({"type": "http.response.body", "body": large, "more_body": True})
        await send({"type": "http.response.body", "body": body})
        await send({"type": "http.response.trailers", "headers": [(b"X-End", b"yes")]})

    app.answer = everything  # type: ignore[method-assign]
    with serving() as server, client_of(server) as client:
        number = client.request("/", "POST", ends=False)
        client.send_body(number, large)
        answer = client.answer(number)
        assert answer.body == large + b"/ %d" % len(large)
        assert answer.early[0]["link"] == "</style.css>; rel=preload"
        assert answer.trailers == {"x-end": "yes"}
        head = client.answer(client.request("/", "HEAD"))
        assert (head.status, head.body, head.is_complete) == (200, b"", True)


def test_wsgi_and_large_answers_share_a_connection(module: ModuleType) -> None:
    """Streams take turns: a small answer does not wait for a large one that was requested before."""

    def large(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"x" * 5_000_000 if environ["PATH_INFO"] == "/large" else b"small"]

    module.app = large  # type: ignore[attr-defined]
    with serving() as server, client_of(server) as client:
        first = client.request("/large")
        assert client.get("/small").body == b"small"
        assert not client.answers[first].is_complete
        assert len(client.answer(first).body) == 5_000_000
    module.app = classic  # type: ignore[attr-defined]
    with serving() as server, client_of(server) as client:
        assert client.get().status == 200


@pytest.mark.parametrize(
    ("path", "method", "fields", "status"),
    [
        ("/" + "x" * 5000, "GET", (), 414),
        ("/", "GET", (("x-long", "x" * 5000),), 431),
        ("/", "GET", (("host", "other"),), 400),
        ("verse", "GET", (), 400),
        ("*", "GET", (), 400),
        ("/", "POST", (("content-length", "1_0"),), 400),
        ('/ HTTP/1.1" 200', "GET", (), 400),
        ("/\x1b", "GET", (), 400),
        ("/", 'GET / HTTP/1.1" 200', (), 400),
        ("/", "CONNECT", ((":protocol", "websocket"),), 400),
        ("/", "GET", (("x-verse", "\x1b"),), 400),
        ("/" + "x" * 5000, "HEAD", (), 414),
    ],
)
def test_a_request_that_is_none_is_refused_and_its_connection_kept(
    app: Application, path: str, method: str, fields: tuple[tuple[str, str], ...], status: int
) -> None:
    """With the status that it has over HTTP/1.1; the library itself ends connections for greater faults."""
    with (
        serving(max_request_line=Size("4 KiB"), max_head=Size("4 KiB")) as server,
        client_of(server) as client,
    ):
        number = client.request(path, method, *fields, ends=False)
        answer = client.answer(number)
        if client.has_ended:
            assert client.goaways[-1][1] == ErrorCodes.PROTOCOL_ERROR
            assert status == 400
        else:
            assert (answer.status, answer.is_complete) == (status, True)
            assert client.get("/good").body == b"/good 0"
    assert [scope["path"] for scope in app.scopes] in (["/good"], [])


def test_a_request_with_a_length_but_no_body_is_refused(app: Application) -> None:
    """Its application could pass it on to a server of HTTP/1.1, which would wait for the body."""
    with serving() as server, client_of(server) as client:
        assert client.get("/", ("content-length", "3")).status == 400
        assert client.get("/", ("content-length", "0")).status == 200


def test_the_values_of_malformed_headers_are_not_logged(
    app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    """They may be secret; the log says what is wrong with them."""
    caplog.set_level(logging.INFO)
    with serving() as server, client_of(server) as client:
        client.get("/", ("cookie", "session=4711 "))
        assert client.has_ended
    assert "surrounded by whitespace\n" in caplog.text
    assert "4711" not in caplog.text


def test_the_body_is_asked_for_when_the_application_wants_it(app: Application) -> None:
    """100 (Continue) comes when the application reads, and not before."""
    app.reads.clear()
    with serving() as server, client_of(server) as client:
        number = client.request("/", "POST", ("expect", "100-continue"), ends=False)
        until(lambda: app.scopes)
        app.reads.set()
        client.until(lambda: client.answers[number].early)
        assert client.answers[number].early == [{":status": "100"}]
        client.send_body(number, b"abc")
        assert client.answer(number).body == b"/ 3"


def test_a_client_cannot_send_more_than_the_application_takes(app: Application) -> None:
    """But for 320 KiB of a body; it goes on as soon as some of it was taken."""
    app.reads.clear()
    with serving() as server, client_of(server) as client:
        number = client.request("/", "POST", ends=False)
        sent = 0
        while True:
            client.exchange_ping()
            room = min(client.h2.local_flow_control_window(number), 16384)
            if not room:
                break
            client.send_body(number, b"x" * room, ends=False)
            sent += room
        assert 256 * 1024 <= sent <= 336 * 1024
        app.reads.set()
        client.send_body(number, b"x" * 100_000)
        assert client.answer(number).body == b"/ %d" % (sent + 100_000)


def test_an_application_cannot_send_more_than_the_client_takes(app: Application) -> None:
    """It waits in `send`, and goes on when the client has room."""
    sent = 0

    async def endless(scope: Any, send: Any, body: bytes) -> None:
        nonlocal sent
        await send(START)
        for left in reversed(range(20)):
            sent += 1
            await send({"type": "http.response.body", "body": b"x" * 16384, "more_body": left > 0})

    app.answer = endless  # type: ignore[method-assign]
    with serving() as server, client_of(server, reads=False) as client:
        number = client.request()
        client.until(lambda: len(client.answers[number].body) == 65535)
        client.exchange_ping()
        assert sent <= 5
        client.reads = True
        client.h2.increment_flow_control_window(1 << 20)
        client.h2.increment_flow_control_window(1 << 20, number)
        client.flush()
        assert len(client.answer(number).body) == 20 * 16384


def _leave_stream(client: Http2Client, number: int) -> None:
    client.h2.reset_stream(number, ErrorCodes.CANCEL)
    client.flush()


@pytest.mark.parametrize("how", ["stream", "end", "reset"])
def test_an_application_hears_that_its_client_has_left(
    app: Application, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """At once: of the stream alone, or of the connection."""
    with serving() as server, client_of(server) as client:
        number = client.request("/left", "POST", ends=False)
        until(lambda: app.scopes)
        if how == "stream":
            _leave_stream(client, number)
        else:
            (reset if how == "reset" else type(client.sock).close)(client.sock)
        until(lambda: app.heard == ["/left"])
        if how == "stream":
            assert client.get("/good").body == b"/good 0"
    assert faults(caplog) == []


@pytest.mark.parametrize("reads", [True, False], ids=["sends nothing", "takes nothing"])
def test_a_client_that_stalls_loses_its_request_alone(app: Application, reads: bool) -> None:
    """Whether it does not send the body or leaves no room for the answer; the application hears of it."""
    ended = threading.Event()

    async def large(scope: Any, send: Any, body: bytes) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        ended.set()

    if not reads:
        app.answer = large  # type: ignore[method-assign]
    with serving(stall=Duration("300ms")) as server, client_of(server, reads=reads) as client:
        number = client.request("/stalled", "POST" if reads else "GET", ends=not reads)
        assert client.answer(number).reset == ErrorCodes.CANCEL
        if reads:
            until(lambda: app.heard == ["/stalled"])
        else:
            assert ended.wait(60)
        client.exchange_ping()
        assert not client.has_ended


def test_headers_of_clients_are_in_no_log(app: Application, caplog: pytest.LogCaptureFixture) -> None:
    """However much is logged: they have cookies and passwords."""
    caplog.set_level(logging.DEBUG)
    with serving() as server, client_of(server) as client:
        assert client.answer(client.request("/", "GET", ("cookie", "a=unruly"))).status == 200
    assert "unruly" not in caplog.text


def _headers(encoder: Encoder, number: int, *flags: str, more: bytes = b"") -> bytes:
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/")]
    return HeadersFrame(number, encoder.encode(fields) + more, flags=flags).serialize()


def _rapid_reset(encoder: Encoder) -> Iterator[bytes]:
    for number in range(1, 20001, 2):
        yield _headers(encoder, number, "END_HEADERS", "END_STREAM") + RstStreamFrame(number, 8).serialize()


def _endless_headers(encoder: Encoder, more: bytes) -> Iterator[bytes]:
    yield _headers(encoder, 1)
    for _ in range(10000):
        yield ContinuationFrame(1, more).serialize()


def _empty_data(encoder: Encoder) -> Iterator[bytes]:
    yield _headers(encoder, 1, "END_HEADERS")
    for _ in range(10000):
        yield DataFrame(1).serialize()


def _many(frame: Frame) -> Iterator[bytes]:
    return itertools.repeat(frame.serialize(), 10000)


FLOODS: dict[str, Callable[[Encoder], Iterator[bytes]]] = {
    "reset": _rapid_reset,
    "continuation": lambda encoder: _endless_headers(encoder, b"\x00\x01a\x01b" * 1000),
    "empty continuation": lambda encoder: _endless_headers(encoder, b""),
    "ping": lambda _: _many(PingFrame(0, b"12345678")),
    "settings": lambda _: _many(SettingsFrame(0, {4: 65535})),
    "priority": lambda _: _many(PriorityFrame(5, 0, 1)),
    "empty data": _empty_data,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_connection(app: Application, caplog: pytest.LogCaptureFixture, flood: str) -> None:
    """Of frames that cost us more than the client; the log names it, and others are served."""
    caplog.set_level(logging.INFO)
    app.reads.clear()
    data = b"".join(FLOODS[flood](Encoder()))  # before there is a server, which waits only so long for it
    with serving() as server:
        with client_of(server) as client:
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sock.sendall(data)
            client.to_the_end()
        until(lambda: connections(server) == 0)
        app.reads.set()
        assert get(server, "/other")[2] == "/other 0"
    assert "closed HTTP/2 of 127.0.0.1" in caplog.text
    assert len(app.scopes) <= 101
    assert faults(caplog) == []


def test_streams_beyond_the_limit_are_refused(app: Application) -> None:
    """The client may repeat them; those that are open are not disturbed."""
    with serving(max_streams=3) as server, client_of(server) as client:
        app.free.clear()
        numbers = [client.request(f"/{n}") for n in range(5)]
        assert [client.answer(number).reset for number in numbers[3:]] == [ErrorCodes.REFUSED_STREAM] * 2
        app.free.set()
        assert [client.answer(number).status for number in numbers[:3]] == [200] * 3
        assert client.h2.remote_settings.max_concurrent_streams == 3
        assert client.get("/again").body == b"/again 0"


def test_requests_that_clients_leave_count_while_the_application_works_on_them(app: Application) -> None:
    """Otherwise a client could have any number of them by resetting each (CVE-2023-44487)."""
    app.free.clear()
    with serving(max_streams=3) as server, client_of(server) as client:
        for n in range(3):
            number = client.request(f"/{n}")
            until(partial(app.has_heard, n + 1))
            _leave_stream(client, number)
        assert client.get("/more").reset == ErrorCodes.REFUSED_STREAM
        app.free.set()
        until(lambda: client.get("/more").status == 200)


def test_the_table_for_our_headers_stays_small(app: Application) -> None:
    """Whatever size of it the client allows."""
    with serving() as server, client_of(server) as client:
        client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 1 << 24})
        client.flush()
        client.exchange_ping()
        client.get()
        assert client.h2.decoder.header_table_size <= 4096


@contextmanager
def draining(**options: Any) -> Iterator[tuple[Served[Service], Callable[[], None]]]:
    """Serve the application; yield the server, and what begins to stop it."""
    with ExitStack() as stack:
        server = stack.enter_context(serving(**options))
        stop = threading.Thread(target=stack.pop_all().close)
        yield server, stop.start
        stop.join(PATIENCE)
        assert not stop.is_alive()


def test_no_request_is_lost_by_a_drain(app: Application) -> None:
    """GOAWAY comes twice: what the client sends before it knows the last stream is answered."""
    app.free.clear()
    with draining(drain_timeout=100.0) as (server, stop), client_of(server) as client:
        first = client.request("/first")
        until(lambda: app.scopes)
        stop()
        (part,) = (each for each in server.service.walk() if isinstance(each, Server))
        until(part.draining.is_set)
        second = client.request("/second")  # the client has read nothing yet
        client.until(lambda: len(client.goaways) == 2)
        late = client.request("/late")
        until(lambda: len(app.scopes) == 2)
        app.free.set()
        assert client.answer(first).body == b"/first 0"
        assert client.answer(second).body == b"/second 0"
        client.to_the_end()
    assert client.goaways == [(2**31 - 1, ErrorCodes.NO_ERROR), (second, ErrorCodes.NO_ERROR)]
    assert client.answers[late].status == 0


def test_an_idle_connection_does_not_hold_a_drain(app: Application) -> None:
    """Nor one on which nothing was ever requested: both are closed when the client has heard."""
    with draining(drain_timeout=100.0) as (server, stop), client_of(server) as idle, client_of(server) as new:
        assert idle.get().status == 200
        new.exchange_ping()
        stop()
        idle.to_the_end()
        new.to_the_end()
    assert [last for last, _ in idle.goaways] == [2**31 - 1, 1]
    assert [last for last, _ in new.goaways] == [2**31 - 1, 0]


def test_a_stream_hears_of_a_drain_in_its_middle(app: Application, module: ModuleType) -> None:
    """The event is that of a client that left, and what the application sends then arrives."""

    async def news(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("no lifespan here")
        await receive()
        await send(START)
        await send({"type": "http.response.body", "body": b"news ", "more_body": True})
        assert await receive() == {"type": "http.disconnect", "draining": True}
        await send({"type": "http.response.body", "body": b"bye"})

    module.app = news  # type: ignore[attr-defined]
    with draining(drain_timeout=2.0) as (server, stop), client_of(server) as client:
        number = client.request()
        client.until(lambda: client.answers[number].body)
        stop()
        assert client.answer(number).body == b"news bye"
        client.to_the_end()


@pytest.mark.parametrize("begins", ["nothing", "preface", "half a head"])
def test_a_client_that_does_not_come_to_its_request_is_cut(app: Application, begins: str) -> None:
    """In the time for a head; and in the time for another request after an answer."""
    with serving(head_timeout=Duration("300ms")) as server, server.connect() as sock:
        if begins == "nothing":
            assert sock.recv(1) == b""
            return
        with Http2Client(sock) as client:
            if begins == "half a head":
                client.sock.sendall(_headers(client.h2.encoder, 1))
            client.to_the_end()
    assert app.scopes == []


def test_an_idle_connection_is_closed(app: Application) -> None:
    """With GOAWAY, which names the last request that was answered."""
    with serving(keep_alive=Duration("300ms")) as server, client_of(server) as client:
        assert client.get().status == 200
        client.to_the_end()
        assert client.goaways == [(1, ErrorCodes.NO_ERROR)]


def test_a_client_that_goes_away_still_has_its_answers(app: Application) -> None:
    """And the connection is closed behind the last one."""
    app.free.clear()
    with serving() as server, client_of(server) as client:
        number = client.request()
        client.sock.sendall(GoAwayFrame(0, 0).serialize())
        until(lambda: app.scopes)
        app.free.set()
        assert client.answer(number).body == b"/ 0"
        client.to_the_end()
    assert client.goaways == []


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"type": "http.response.start", "status": 700000}], 500),
        ([START | {"headers": [(b"x", b"a\r\nb")]}], 500),
        ([START, {"type": "http.response.start"}], ErrorCodes.INTERNAL_ERROR),
        ([START | {"headers": [(b"content-length", b"9")]}, {"type": "http.response.body"}], 500),
        ([], 500),
    ],
)
def test_a_fault_of_the_application_is_no_answer_of_its(
    app: Application, caplog: pytest.LogCaptureFixture, messages: list[dict[str, Any]], expected: int
) -> None:
    """It is 500 while nothing was sent, and a reset of the stream after that; the connection goes on."""

    async def faulty(scope: Any, send: Any, body: bytes) -> None:
        for message in messages if scope["path"] == "/" else ():
            await send(message)
        if scope["path"] != "/":
            await send(START)
            await send({"type": "http.response.body", "body": body})

    app.answer = faulty  # type: ignore[method-assign]
    with serving() as server, client_of(server) as client:
        answer = client.get()
        assert expected in (answer.status, answer.reset)
        assert client.get("/good").body == b"/good 0"
    assert faults(caplog) != []


def test_an_answer_before_the_end_of_the_body_is_not_reset_at_once(module: ModuleType) -> None:
    """Some clients would not read it then. Those that send on are stopped a second later, without a fault."""

    async def early(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send(START | {"status": 413})
        await send({"type": "http.response.body", "body": b"too large"})

    module.app = early  # type: ignore[attr-defined]
    with serving() as server, client_of(server) as client:
        ended, left = (client.request("/", "POST", ends=False) for _ in range(2))
        client.until(lambda: client.answers[ended].is_complete)
        client.send_body(ended, b"verse" * 1000)
        client.until(lambda: client.answers[left].reset is not None)
        answer = client.answers[left]
        assert (answer.status, answer.body, answer.reset) == (413, b"too large", ErrorCodes.NO_ERROR)
        assert client.answers[ended].reset is None
        assert client.get().status == 413


def test_headers_of_http1_are_not_sent(app: Application) -> None:
    """Which HTTP/2 forbids (RFC 9113, 8.2.2), and spaces round a value."""

    async def old(scope: Any, send: Any, body: bytes) -> None:
        names = (b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Transfer-Encoding", b"Upgrade")
        await send(START | {"headers": [*((name, b"x") for name in names), (b"X-Kept", b" a:b ")]})
        await send({"type": "http.response.body", "body": body})

    app.answer = old  # type: ignore[method-assign]
    with serving() as server, client_of(server) as client:
        answer = client.get()
    assert set(answer.headers) == {"date", "x-kept"}
    assert answer.headers["x-kept"] == "a:b"


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 100, DataFrame(7, b"x").serialize(), WindowUpdateFrame(0, 2**31 - 1).serialize()],
    ids=["rubbish", "idle stream", "overflow"],
)
def test_a_breach_of_the_protocol_ends_the_connection(app: Application, data: bytes) -> None:
    """With GOAWAY, and the applications hear that the client has left."""
    with serving() as server, client_of(server) as client:
        client.request("/broken", "POST", ends=False)
        until(lambda: app.scopes)
        client.sock.sendall(data)
        client.to_the_end()
        until(lambda: app.heard == ["/broken"])
    assert client.goaways[-1][1] != ErrorCodes.NO_ERROR
