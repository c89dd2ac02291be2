"""What HTTP/1.1 asks of the web, byte by byte, and what applications may do with it."""

import asyncio
import json
import logging
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tamed.builtin.web import load
from tamed.errors import ApplicationFailed
from tamed.net.endpoint import UnixEndpoint
from tamed.plugins.values import Duration
from tests.builtin.http2_client import Http2Client
from tests.builtin.test_web import classic, client_of, echo, get, module, raw, served
from tests.builtin.test_web_leaving import connections, faults, until

__all__ = ["module"]  # a fixture

GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
START = {"type": "http.response.start", "status": 200}
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
BODY = {"type": "http.response.body", "body": b"verse"}


def application(*messages: dict[str, Any]) -> Any:
    """Make an application that sends these."""

    async def answer(scope: Any, _: Any, send: Any) -> None:
        assert scope["type"] == "http"
        for message in messages:
            await send(message)

    return answer


@pytest.mark.parametrize(
    "body",
    [
        b"z\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\r\n-1\r\n\r\n",
        b"fffffffffffffffff\r\n",
    ],
)
def test_a_body_in_malformed_chunks_is_refused(
    module: ModuleType, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    """With 400 if no answer has begun, and without a fault of the application, which hears a disconnect."""
    module.app = echo  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert raw(server, head + body).startswith(b"HTTP/1.1 400 ")
    assert faults(caplog) == []


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b""])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 30", b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"1e\r\nDELETE / HTTP/1.1\r\nHost: x\r\n\r\n\r\n0\r\nA: b\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("size", [7, 1000])
def test_the_body_of_a_request_with_an_ignored_upgrade_is_its_body(
    module: ModuleType, upgrade: bytes, framing: bytes, body: bytes, size: int
) -> None:
    """And no other requests: some clients offer HTTP/2 with every request in clear text."""
    module.app = echo  # type: ignore[attr-defined]
    head = b"POST /first HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n"
    sent = head + framing + b"\r\n\r\n" + body + GET
    with served(app="web_test_app:app") as server, server.connect() as client:
        for start in range(0, len(sent), size):
            client.sendall(sent[start : start + size])
        with client.makefile("rb") as answers:
            answer = answers.read()
    assert answer.count(b"HTTP/1.1 200") == answer.count(b"HTTP/1.1 ") == 2
    assert b"/first 30" in answer


def test_a_client_is_asked_for_its_body_when_the_application_wants_it(module: ModuleType) -> None:
    """And not before; if it is not wanted, the answer comes alone and is the last."""
    module.app = echo  # type: ignore[attr-defined]
    request = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with (
        served(app="web_test_app:app") as server,
        server.connect() as client,
        client.makefile("rb") as answers,
    ):
        client.sendall(request)
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        client.sendall(b"abc" + GET)
        with answers:
            assert answers.read().count(b"HTTP/1.1 200") == 2
    module.app = application(START, BODY)  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        answer = raw(server, request)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    ("version", "method", "end"),
    [
        (b"1.1", b"GET", b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nverse\r\n0\r\n\r\n"),
        (b"1.0", b"GET", b"connection: close\r\n\r\nverse"),
        (b"1.1", b"HEAD", b"connection: close\r\n\r\n"),
    ],
)
def test_a_body_of_unknown_length_is_framed_for_its_client(
    module: ModuleType, version: bytes, method: bytes, end: bytes
) -> None:
    """In chunks, or by the end of the connection for a client that knows no chunks."""
    module.app = application(START, BODY)  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        answer = raw(server, GET.replace(b"1.1", version).replace(b"GET", method))
    assert answer.endswith(end)


def test_an_absolute_target_names_the_host(module: ModuleType) -> None:
    """Whatever the header says (RFC 9112, 3.2.2)."""

    async def tell(scope: Any, _: Any, send: Any) -> None:
        assert scope["type"] == "http"
        host = dict(scope["headers"])[b"host"]
        await send(START)
        await send({"type": "http.response.body", "body": b"%b %b" % (host, scope["raw_path"])})

    module.app = tell  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        for target, told in (
            (b"http://poets.example/verse?a", b"poets.example /verse"),
            (b"http://user@[::1]:81", b"[::1]:81 /"),
        ):
            assert told in raw(server, GET.replace(b" /", b" " + target, 1))


def test_white_space_around_a_value_is_not_part_of_it(module: ModuleType) -> None:
    """Before it and behind it (RFC 9112, 5)."""
    module.app = echo  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        assert raw(server, GET.replace(b"x\r\n", b"\t x \t\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("http2", [False, True])
def test_a_failed_answer_to_head_has_no_body(module: ModuleType, http2: bool) -> None:
    """As no answer to HEAD has one (RFC 9110, 9.3.2): clients of HTTP/2 reject the whole answer otherwise."""
    module.app = application({"type": "http.response.body"})  # type: ignore[attr-defined]
    with served(app="web_test_app:app", http2=True) as server:
        if http2:
            with server.connect() as sock, Http2Client(sock) as client:
                answer = client.answer(client.request("/", "HEAD"))
            assert (answer.status, answer.body, answer.is_complete) == (500, b"", True)
        else:
            answered = raw(server, GET.replace(b"GET", b"HEAD"))
            assert answered.startswith(b"HTTP/1.1 500 ")
            assert answered.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("error", [SystemExit, BaseException])
def test_an_application_that_wants_to_exit_fails_in_one_request_only(
    module: ModuleType, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """Its client sees 500, and others are answered: one request does not end the server."""
    go_on = asyncio.Event()

    async def leaving(scope: Any, _: Any, send: Any) -> None:
        assert scope["type"] != "lifespan"
        if scope["path"] == "/leave" or scope["type"] == "websocket":
            go_on.set()
            raise error("no rhyme")
        await go_on.wait()
        await send(START)
        await send(BODY)

    module.app = leaving  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server, server.connect() as other:
        other.sendall(GET)
        assert raw(server, GET.replace(b" / ", b" /leave ")).startswith(b"HTTP/1.1 500 ")
        assert raw(server, HANDSHAKE).startswith(b"HTTP/1.1 500 ")
        with other.makefile("rb") as answer:
            assert b"verse" in answer.read()
    assert caplog.text.count("the web application raised") == 2


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-verse", b"busy\r\nset-cookie: a=b")],
        [(b"x-verse", b"busy\nold")],
        [(b"x-verse\r\nx", b"busy")],
        [(b"x verse", b"busy")],
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"-5")],
    ],
)
def test_a_header_that_would_be_another_is_not_sent(
    module: ModuleType, caplog: pytest.LogCaptureFixture, headers: list[tuple[bytes, bytes]]
) -> None:
    """The client sees 500, and the log says why."""
    module.app = application(START | {"headers": headers}, BODY)  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        answer = raw(server, GET)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"busy" not in answer
    assert "RuntimeError: the application sent" in caplog.text


@pytest.mark.parametrize("length", [b"4", b"6"])
def test_a_body_of_another_length_than_promised_does_not_look_complete(
    module: ModuleType, caplog: pytest.LogCaptureFixture, length: bytes
) -> None:
    """A head that waits for its body is not sent without it, and so the client sees 500."""
    module.app = application(START | {"headers": [(b"content-length", length)]}, BODY)  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        assert raw(server, GET).startswith(b"HTTP/1.1 500 ")
    assert "the body has 5 bytes" in caplog.text


def test_hints_and_trailers_are_sent(module: ModuleType) -> None:
    """Before and behind the answer (RFC 8297, and RFC 9110, 6.5)."""
    trailers = [(b"x-sum", b"1")]
    module.app = application(  # type: ignore[attr-defined]
        {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]},
        START | {"trailers": True},
        BODY,
        {"type": "http.response.trailers", "headers": trailers, "more_trailers": False},
    )
    with served(app="web_test_app:app") as server:
        answer = raw(server, GET)
    assert answer.startswith(
        b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"
    )
    assert answer.endswith(b"5\r\nverse\r\n0\r\nx-sum: 1\r\n\r\n")


def test_an_application_below_a_path_knows_it(module: ModuleType) -> None:
    """ASGI's path has the root path before it; WSGI's is apart."""
    module.app = echo  # type: ignore[attr-defined]
    with served(app="web_test_app:app", root_path="/poems") as server:
        assert get(server, "/a%20b")[2] == "http 127.0.0.1 /poems/a b 0"
    module.app = classic  # type: ignore[attr-defined]
    with served(app="web_test_app:app", root_path="/poems") as server:
        assert get(server, "/a%20b")[2] == "http 127.0.0.1 /a b 0"


@pytest.mark.parametrize(("name", "factory"), [("app", True), ("app()", False)])
def test_an_application_may_be_made(module: ModuleType, name: str, factory: bool) -> None:
    """By a function that is named so, by the option or by parentheses."""
    module.app = lambda: echo  # type: ignore[attr-defined]
    with served(app=f"web_test_app:{name}", factory=factory) as server:
        assert get(server, "/")[0] == 200


def test_a_factory_that_fails_is_explained(module: ModuleType) -> None:
    """As one that is not said to be a factory is."""
    module.app = lambda: 1 / 0  # type: ignore[attr-defined]
    with pytest.raises(ApplicationFailed, match=r"the factory of .* raised: ZeroDivisionError"):
        load("web_test_app:app()")
    module.app = lambda: echo  # type: ignore[attr-defined]
    with pytest.raises(ApplicationFailed, match="--factory"), served(app="web_test_app:app"):
        pass


def test_a_proxy_on_a_unix_socket_may_be_trusted(module: ModuleType, tmp_path: Path) -> None:
    """Only if that is said: the client is nobody otherwise."""
    module.app = application_that_names_its_client  # type: ignore[attr-defined]
    request = GET.replace(b"Host", b"X-Forwarded-For: 192.0.2.1\r\nHost")
    for trust, client in ((["unix"], b"('192.0.2.1', 0)"), ([], b"None")):
        listen = [UnixEndpoint(str(tmp_path / "s"))]
        with (
            served(app="web_test_app:app", trust=trust, listen=listen),
            socket.socket(socket.AF_UNIX) as proxy,
        ):
            proxy.connect(str(tmp_path / "s"))
            proxy.sendall(request)
            with proxy.makefile("rb") as answer:
                assert client in answer.read()


def test_a_client_of_a_unix_socket_has_an_empty_address_in_wsgi(module: ModuleType, tmp_path: Path) -> None:
    """As under other servers: applications take the variable for granted."""
    module.app = classic  # type: ignore[attr-defined]
    listen = [UnixEndpoint(str(tmp_path / "s"))]
    with served(app="web_test_app:app", listen=listen), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        client.sendall(GET)
        with client.makefile("rb") as answer:
            assert b"http  / 0" in answer.read()


async def application_that_denies_websockets(scope: Any, _: Any, send: Any) -> None:
    """Answer requests, and no handshakes."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    else:
        await send({**START, "headers": []})
        await send(BODY)


async def application_that_names_its_client(scope: Any, _: Any, send: Any) -> None:
    """Answer with the client."""
    assert scope["type"] == "http"
    await send(START)
    await send({"type": "http.response.body", "body": repr(scope["client"]).encode()})


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("short", r'127\.0\.0\.1:\d+ - "POST /a\?b HTTP/1\.1" 200'),
        (
            "common",
            r'127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]+/\d{4}:[\d:]{8} \+0000\] "POST /a\?b HTTP/1\.1" 200 19',
        ),
        ("combined", r'.*"POST /a\?b HTTP/1\.1" 200 19 "http://here/\\"" "agent\\xe4"'),
    ],
)
def test_the_access_log_has_the_format_that_is_wanted(
    module: ModuleType, caplog: pytest.LogCaptureFixture, kind: str, line: str
) -> None:
    """As Apache writes it; what a client says can neither end a field nor be raw bytes."""
    module.app = echo  # type: ignore[attr-defined]
    caplog.set_level("INFO")
    with served(app="web_test_app:app", access_log_format=kind) as server:
        get(server, "/a?b", "POST", b"x", Referer='http://here/"', User_Agent="agentä")
    found = [each.getMessage() for each in caplog.records if each.name == "web.access"]
    assert len(found) == 1
    assert re.fullmatch(line, found[0]), found[0]


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (GET, r'web\.access: \[::1\]:\d+ - "GET '),
        (b"GET / HTTP/1.1\r\n\r\n", r"web: refused a request of \[::1\]:\d+: "),
        (HANDSHAKE, r"web: the web application denied a WebSocket to \[::1\]:\d+ at /chat"),
    ],
)
def test_the_log_has_the_address_of_an_ipv6_client_in_brackets(
    module: ModuleType, caplog: pytest.LogCaptureFixture, sent: bytes, line: str
) -> None:
    """As on the command line: otherwise its port could be a part of the address."""
    module.app = application_that_denies_websockets  # type: ignore[attr-defined]
    caplog.set_level("INFO")
    with served(app="web_test_app:app", iface="::1") as server:
        raw(server, sent)
    assert any(re.match(line, f"{each.name}: {each.getMessage()}") for each in caplog.records)


def test_the_access_log_may_be_json(module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """Each line is an object, and stays one however long the client's texts are."""
    module.app = echo  # type: ignore[attr-defined]
    caplog.set_level("INFO")
    with served(app="web_test_app:app", access_log_format="json") as server:
        get(server, "/a?b", "POST", b"x", User_Agent="agent")
        get(server, "/" + "x" * 4000, Referer="y" * 4000)
    lines = [each.getMessage() for each in caplog.records if each.name == "web.access"]
    first, second = map(json.loads, lines)
    assert (first["client"], first["method"], first["target"]) == ("127.0.0.1", "POST", "/a?b")
    assert (first["status"], first["bytes"], first["agent"]) == (200, 19, "agent")
    assert first["seconds"] >= 0
    assert second["target"].startswith("/xxx")
    assert max(map(len, lines)) <= 1000


def sends_file(path: Path, size: int, *, chunked: bool = False) -> Any:
    """Make an application that has the server send a file, and says that it has so many bytes."""

    async def answer(scope: Any, _: Any, send: Any) -> None:
        assert scope["type"] == "http"
        assert scope["extensions"]["http.response.pathsend"] == {}
        headers = [] if chunked else [(b"content-length", b"%d" % size)]
        await send(START | {"headers": headers})
        await send({"type": "http.response.pathsend", "path": str(path)})

    return answer


@pytest.mark.parametrize("way", ["kernel", "chunks", "HTTP/2", "HEAD"])
def test_the_server_sends_a_file_for_an_application(
    module: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """By the kernel where it can; the connection goes on behind it, and the log has its size."""
    caplog.set_level(logging.INFO)
    content = b"verse" * 400_000
    path = tmp_path / "large.bin"
    path.write_bytes(content)
    module.app = sends_file(path, len(content), chunked=way == "chunks")  # type: ignore[attr-defined]
    with served(app="web_test_app:app", access_log_format="common", http2=True) as server:
        if way == "HTTP/2":
            with server.connect() as sock, Http2Client(sock) as http2:
                assert http2.get().body == content
                assert http2.get().body == content
        else:
            with client_of(server) as client:
                for _ in range(2):
                    client.request("HEAD" if way == "HEAD" else "GET", "/")
                    response = client.getresponse()
                    assert response.read() == (b"" if way == "HEAD" else content)
    assert len(re.findall(r'HTTP/[12.]+" 200 ' + ("-" if way == "HEAD" else "2000000"), caplog.text)) == 2


def test_a_file_is_sent_behind_what_the_client_has_not_taken_yet(module: ModuleType, tmp_path: Path) -> None:
    """However much of the answer is still in memory, and however slow the client is."""
    before, content = b"prose" * 400_000, b"verse" * 400_000
    path = tmp_path / "large.bin"
    path.write_bytes(content)

    async def answer(_: Any, __: Any, send: Any) -> None:
        length = b"%d" % (3 * len(before) + len(content))
        await send(START | {"headers": [(b"content-length", length)]})
        for _ in range(3):
            await send({"type": "http.response.body", "body": before, "more_body": True})
        await send({"type": "http.response.pathsend", "path": str(path)})

    module.app = answer  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server, server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        stream = sock.makefile("rb")
        for _ in range(2):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.readline()
            assert stream.read(3 * len(before) + len(content)) == 3 * before + content


def test_a_file_of_another_size_than_promised_is_not_sent(
    module: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor one that does not exist: the client sees 500, and the log says why."""
    path = tmp_path / "small.txt"
    path.write_bytes(b"verse")
    for wanted, size, fault in ((path, 6, "has 5 bytes"), (tmp_path / "none", 6, "FileNotFoundError")):
        module.app = sends_file(wanted, size)  # type: ignore[attr-defined]
        with served(app="web_test_app:app") as server:
            assert raw(server, GET).startswith(b"HTTP/1.1 500 ")
        assert fault in caplog.text


@pytest.mark.parametrize("how", ["leaves", "stalls", "truncated"])
def test_a_file_that_is_not_sent_to_its_end_does_not_look_complete(
    module: ModuleType, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Because the client leaves, or takes nothing for too long, or the file becomes shorter.

    None is a fault of the application.
    """
    size = 50_000_000
    path = tmp_path / "large.bin"
    path.touch()
    os.truncate(path, size)
    module.app = sends_file(path, size)  # type: ignore[attr-defined]
    stall = Duration("500ms" if how == "stalls" else "1h")
    with served(app="web_test_app:app", stall=stall) as server:
        client = server.connect()
        client.sendall(GET)
        assert client.recv(1000)
        if how == "leaves":
            client.close()
        elif how == "truncated":
            os.truncate(path, 100)
            with suppress(ConnectionResetError):
                assert len(client.makefile("rb").read()) < size
        until(lambda: connections(server) == 0)
        client.close()
    assert "the web application" not in caplog.text
    told = "the file for / became shorter while it was sent: the answer is cut off"
    assert (told in caplog.text) == (how == "truncated")
