"""WebSockets of the web: their application, their limits, and how they end."""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from tamed.plugins.values import Duration, Size
from tamed.service.service import Service
from tamed.testing.running import Served
from tests.builtin.test_web import get, module, raw, served
from tests.builtin.test_web_leaving import connections, faults, until
from tests.net.poetry import reset
from tests.patience import PATIENCE
from tests.process.clients import dial

__all__ = ["module"]  # a fixture

HANDSHAKE = (
    b"GET /chat?q=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def client_of(server: Served[Service], **options: Any) -> ClientConnection:
    """Open a WebSocket, as a context."""
    opened: ClientConnection = connect(
        f"ws://{server.address()}/chat?q=1", open_timeout=PATIENCE, proxy=None, **options
    )
    return opened


class Echo:
    """Sends back what comes, keeps the scope and how it ended, and waits for `free` before each message.

    With `keeps` it sends nothing back.
    """

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {}
        self.ended: list[Any] = []
        self.keeps = False
        self.kept: list[Any] = []
        self.free = threading.Event()
        self.free.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            raise ValueError("nothing but WebSockets here")
        self.scope = scope
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]})
        while (message := await receive())["type"] == "websocket.receive":
            while not self.free.is_set():  # noqa: ASYNC110 - another thread sets it
                await asyncio.sleep(0.01)
            if self.keeps:
                self.kept.append(message["bytes"][:4])
            else:
                await send(message | {"type": "websocket.send"})
        self.ended.append((message["type"], message["code"]))


@pytest.fixture
def echo(module: ModuleType) -> Echo:
    """Make an application that the server can be told to serve."""
    found = module.app = Echo()  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_are_received_and_sent(echo: Echo, compression: str | None) -> None:
    """Of text and of bytes, in one frame or several, compressed or not, with the chosen subprotocol."""
    with (
        served(app="web_test_app:app") as server,
        client_of(server, compression=compression, subprotocols=["verse", "prose"]) as client,
    ):
        for message in ("busy old fool", "", "ä" * 50000, b"\0" * 100000, b""):
            client.send(message)
            assert client.recv(PATIENCE) == message
        client.send(["busy ", "old ", "fool"])
        assert client.recv(PATIENCE) == "busy old fool"
        assert client.subprotocol == "verse"
        assert bool(client.protocol.extensions) is (compression is not None)
        assert (echo.scope["scheme"], echo.scope["path"], echo.scope["query_string"]) == (
            "ws",
            "/chat",
            b"q=1",
        )
        client.close(1000)
    assert echo.ended == [("websocket.disconnect", 1000)]


def closed_by(client: ClientConnection) -> int:
    """Return the code with which the server closes a WebSocket."""
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(PATIENCE)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([Frame(Opcode.BINARY, bytes(2000))], 1009),
        ([Frame(Opcode.BINARY, bytes(600), fin=False), Frame(Opcode.CONT, bytes(600))], 1009),
        ([Frame(Opcode.TEXT, b"\xff")], 1007),
        ([Frame(Opcode.CONT, b"x")], 1002),
        ([Frame(Opcode.PING, bytes(126))], 1002),
        ([Frame(Opcode.TEXT, b"x", rsv3=True)], 1002),
    ],
    ids=["long", "long in parts", "no text", "out of order", "long control", "reserved bit"],
)
def test_a_message_that_may_not_be_closes_the_connection(echo: Echo, frames: list[Frame], code: int) -> None:
    """With a code that tells why, for the client and for the application."""
    with (
        served(app="web_test_app:app", max_message=Size("1000 B")) as server,
        client_of(server, compression=None) as client,
    ):
        for frame in frames:
            client.socket.sendall(_serialized(frame))
        assert closed_by(client) == code
        until(lambda: echo.ended)
    assert echo.ended == [("websocket.disconnect", code)]


def _serialized(frame: Frame) -> bytes:
    """Return a frame's bytes; the library refuses to send some of these."""
    first = (frame.fin << 7) | (frame.rsv3 << 4) | frame.opcode
    size = len(frame.data)
    length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + bytes(frame.data)  # masked with zeros


def test_a_compressed_message_is_as_long_as_it_is_unpacked(echo: Echo) -> None:
    """A few bytes that become many are refused before they are unpacked."""
    with (
        served(app="web_test_app:app", max_message=Size("1 MiB")) as server,
        client_of(server, compression="deflate") as client,
    ):
        client.send(bytes(4 << 20))
        assert closed_by(client) == 1009


def test_messages_that_the_application_does_not_take_stay_with_the_client(echo: Echo) -> None:
    """No more of them are read than the queue holds; later all come, in order."""
    numbers = [number.to_bytes(4, "big") for number in range(2000)]
    sent: list[bytes] = []
    echo.keeps = True
    echo.free.clear()
    with served(app="web_test_app:app") as server, client_of(server, compression=None) as client:

        def send() -> None:
            for number in numbers:
                client.send(number + bytes(16 << 10))
                sent.append(number)

        sending = threading.Thread(target=send)
        sending.start()
        until(lambda: len(sent) > 20)
        sending.join(0.5)
        assert len(sent) < len(numbers)
        echo.free.set()
        sending.join(PATIENCE)
        until(lambda: len(echo.kept) == len(numbers))
    assert echo.kept == numbers


def test_pings_are_answered_and_a_client_that_answers_none_is_closed(echo: Echo) -> None:
    """With code 1011, for its application too; one that answers stays."""
    with (
        served(app="web_test_app:app", ping_interval=Duration("200ms")) as server,
        client_of(server) as client,
        server.connect() as silent,
    ):
        assert client.ping().wait(PATIENCE)
        silent.sendall(HANDSHAKE)
        with silent.makefile("rb") as answers:
            received = answers.read()
        assert received.startswith(b"HTTP/1.1 101 ")
        assert b"\x89\x00" in received  # a ping
        assert b"\x03\xf3" in received  # 1011
        until(lambda: echo.ended)
        assert echo.ended == [("websocket.disconnect", 1011)]
        client.send("still here")
        assert client.recv(PATIENCE) == "still here"


@pytest.mark.parametrize("leave", [socket.socket.close, lambda client: client.shutdown(socket.SHUT_WR)])
def test_an_application_hears_at_once_that_its_client_has_left(
    echo: Echo, caplog: pytest.LogCaptureFixture, leave: Callable[[socket.socket], object]
) -> None:
    """Without a close frame the code is 1006, and no descriptor stays."""
    with served(app="web_test_app:app") as server:
        with server.connect() as client:
            client.sendall(HANDSHAKE)
            while b"\r\n\r\n" not in client.recv(1000):
                pass
            leave(client)
            until(lambda: echo.ended)
        assert echo.ended == [("websocket.disconnect", 1006)]
        until(lambda: connections(server) == 0)
    assert faults(caplog) == []


def test_clients_are_asked_to_come_again_when_the_server_stops(echo: Echo) -> None:
    """With code 1012, and what they sent before is answered."""
    with served(app="web_test_app:app") as server:
        opened = ExitStack()
        clients = [opened.enter_context(client_of(server)) for _ in range(5)]
        for client in clients:
            client.send("before")
        assert [client.recv(PATIENCE) for client in clients] == ["before"] * 5
    with opened:
        assert [closed_by(client) for client in clients] == [1012] * 5
    assert echo.ended == [("websocket.disconnect", 1012)] * 5


def application(*messages: dict[str, Any], error: str = "") -> Callable[..., Any]:
    """Make an application that takes the first event, sends these, and may raise then."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        for message in messages:
            await send(message)
        if error:
            raise ValueError(error)

    return answer


ACCEPT = {"type": "websocket.accept", "headers": [(b"X-Verse", b"1")]}
DENIAL = (
    {"type": "websocket.http.response.start", "status": 401, "headers": [(b"content-length", b"6")]},
    {"type": "websocket.http.response.body", "body": b"log ", "more_body": True},
    {"type": "websocket.http.response.body", "body": b"in"},
)


@pytest.mark.parametrize(
    ("answer", "status", "body", "fault"),
    [
        (application({"type": "websocket.close"}), 403, b"Forbidden\n", ""),
        (application(*DENIAL), 401, b"log in", ""),
        (application(error="no rhyme"), 500, b"Internal Server Error\n", "no rhyme"),
        (application(), 500, b"Internal Server Error\n", "neither accepted nor denied"),
        (application(DENIAL[0]), 500, b"Internal Server Error\n", "an incomplete denial"),
        (application(DENIAL[0], error="no rhyme"), 500, b"Internal Server Error\n", "no rhyme"),
    ],
    ids=["close", "response", "raises", "returns", "returns early", "raises early"],
)
def test_an_application_may_deny_a_websocket(  # noqa: PLR0917 - one story, six facts
    module: ModuleType, caplog: pytest.LogCaptureFixture, answer: Any, status: int, body: bytes, fault: str
) -> None:
    """With a response of its own, or by 403; if it fails, the client sees 500 and the log says why."""
    module.app = answer  # type: ignore[attr-defined]
    caplog.set_level("INFO")
    with served(app="web_test_app:app") as server:
        with pytest.raises(InvalidStatus) as denied:
            client_of(server)
        assert (denied.value.response.status_code, denied.value.response.body) == (status, body)
    assert fault in caplog.text
    assert f'"GET /chat?q=1 HTTP/1.1" {status}' in caplog.text


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (application(ACCEPT), 1000),
        (application(ACCEPT, {"type": "websocket.close", "code": 4000, "reason": "later"}), 4000),
        (application(ACCEPT, error="no rhyme"), 1011),
    ],
    ids=["returns", "closes", "raises"],
)
def test_a_websocket_ends_with_its_application(module: ModuleType, answer: Any, code: int) -> None:
    """With the code that it gives, or one that says how it ended."""
    module.app = answer  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server, client_of(server) as client:
        assert client.response is not None
        assert client.response.headers["x-verse"] == "1"
        assert closed_by(client) == code


def test_an_upgrade_that_nobody_serves_is_not_found(
    module: ModuleType, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says why; HTTP is served beside it."""

    def classic(_: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"verse"]

    module.app = classic  # type: ignore[attr-defined]
    caplog.set_level("INFO")
    (tmp_path / "poem").write_text("verse")
    for options, why in (
        ({"app": "web_test_app:app"}, "speaks WSGI"),
        ({"root": tmp_path}, "files are served"),
    ):
        with served(**options) as server:
            assert raw(server, HANDSHAKE).startswith(b"HTTP/1.1 404 Not Found\r\n")
            assert get(server, "/poem")[2] == "verse"
        assert "no WebSocket at /chat for 127.0.0.1" in caplog.text
        assert why in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 7", b"400"),
        (b"dGhlIHNhbXBsZSBub25jZQ==", b"short", b"400"),
        (b"Host: x\r\n", b"", b"400"),
        (b"Host: x\r\n", b"Host: x\r\nContent-Length: 3\r\n", b"400"),
    ],
    ids=["version", "key", "no host", "body"],
)
def test_a_handshake_that_is_none_is_refused(echo: Echo, old: bytes, new: bytes, status: bytes) -> None:
    """Before the application is asked."""
    with served(app="web_test_app:app") as server:
        answer = raw(server, HANDSHAKE.replace(old, new) + b"abc")
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (b"Sec-WebSocket-Version: 13\r\n" in answer) == (b"Failed to open" in answer)
    assert echo.scope == {}


class Flood:
    """Sends as much as it may, and counts."""

    MOST = 100

    def __init__(self) -> None:
        self.sent = 0
        self.ended: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            raise ValueError("nothing but WebSockets here")
        await receive()
        await send({"type": "websocket.accept"})
        try:
            for _ in range(self.MOST):
                await send({"type": "websocket.send", "bytes": bytes(1_000_000)})
                self.sent += 1
        except OSError as error:
            self.ended.append(str(error))
            raise


@pytest.fixture
def flood(module: ModuleType) -> Flood:
    """Make an application that the server can be told to serve."""
    found = module.app = Flood()  # type: ignore[attr-defined]
    return found


def test_an_application_sends_no_faster_than_its_client_reads(flood: Flood) -> None:
    """It waits while the client reads nothing, and goes on when it does: nothing is piled up, or lost."""
    with served(app="web_test_app:app") as server:
        options = {"compression": None, "max_size": None, "max_queue": 1}
        with client_of(server, **options) as client:
            until(lambda: flood.sent)
            assert len(client.recv(PATIENCE)) == 1_000_000
            assert flood.sent < flood.MOST / 2  # what the buffers of the kernel hold
            for _ in range(flood.MOST - 1):
                assert len(client.recv(PATIENCE)) == 1_000_000
            assert closed_by(client) == 1000
    assert (flood.sent, flood.ended) == (flood.MOST, [])


@pytest.mark.parametrize("stall", ["1h", "50ms"], ids=["leaves", "stalls"])
def test_an_application_that_waits_for_a_client_hears_that_it_has_left(flood: Flood, stall: str) -> None:
    """Its sending fails; a client that reads nothing for too long is cut."""
    with served(app="web_test_app:app", stall=Duration(stall)) as server:
        client = dial(server.address())
        client.sendall(HANDSHAKE)
        until(lambda: flood.sent)
        if stall == "1h":
            reset(client)
        until(lambda: flood.ended)
        client.close()
    assert flood.ended == ["the client has disconnected"]
    assert flood.sent < flood.MOST
