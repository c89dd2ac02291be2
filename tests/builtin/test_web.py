"""The web, in process: files and applications, limits, and what rubbish comes to."""

import asyncio
import http.client
import re
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.builtin._web_files import accepted_encodings
from tamed.builtin.web import MountAt, Options, interface_of, load, web
from tamed.errors import ApplicationFailed, ConfigurationError, MissingInput, ServiceFailed
from tamed.plugins.values import Duration, Size
from tamed.service.service import Service
from tamed.testing.running import Served, serving
from tests.builtin.attempts import ALLOWED, SECRET, every_attempt, make_tree
from tests.patience import PATIENCE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a directory with secrets beside it."""
    return make_tree(tmp_path)


@pytest.fixture
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Make a module that applications can be named in, ``web_test_app``."""
    made = sys.modules["web_test_app"] = ModuleType("web_test_app")
    yield made
    del sys.modules["web_test_app"]


@contextmanager
def served(
    root: Path | None = None, *, drain_timeout: float = 5.0, **options: Any
) -> Iterator[Served[Service]]:
    """Serve a directory, or an application."""
    with serving(web(Options(root=root, port=0, **options)), drain_timeout=drain_timeout) as server:
        yield server


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served[Service]]:
    """Serve a directory in which no test changes anything."""
    with served(make_tree(tmp_path_factory.mktemp("reading"))) as server:
        yield server


@contextmanager
def client_of(server: Served[Service]) -> Iterator[http.client.HTTPConnection]:
    """Open a connection that is kept."""
    client = http.client.HTTPConnection(server.address(), timeout=PATIENCE)
    try:
        yield client
    finally:
        client.close()


def get(
    server: Served[Service], path: str, method: str = "GET", body: bytes | None = None, /, **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    """Ask for something on a connection of its own."""
    with client_of(server) as client:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request(method, path, body, fields)
        response = client.getresponse()
        return response.status, response.headers, response.read().decode()


def raw(server: Served[Service], data: bytes) -> bytes:
    """Send bytes, and return all that comes."""
    with suppress(ConnectionResetError, BrokenPipeError):
        return server.fetch(send=data)
    return b""


def test_files_are_served(root: Path) -> None:
    """Also through links, with their type, length and validators."""
    (root / "page.html").write_text("<p>")
    with served(root) as server:
        for path, content in ALLOWED.items():
            assert get(server, f"/{path}")[::2] == (200, content)
        status, headers, _ = get(server, "/page.html", "HEAD")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert headers["content-length"] == "3"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers
        assert headers["date"].endswith("GMT")


@pytest.mark.parametrize("size", [26, 26 * 10000], ids=["small", "large"])
def test_parts_of_files_are_served(root: Path, size: int) -> None:
    """One range or several, if they are in the file, and the file is still the same."""
    (root / "abc").write_bytes(b"abcdefghijklmnopqrstuvwxyz" * (size // 26))
    with served(root) as server:
        status, headers, body = get(server, "/abc", Range="bytes=2-4")
        assert (status, headers["content-range"], body) == (206, f"bytes 2-4/{size}", "cde")
        assert get(server, "/abc", Range="bytes=-2")[2] == "yz"
        assert get(server, "/abc", Range=f"bytes={size}-")[0] == 416
        assert "multipart" in get(server, "/abc", Range="bytes=0-0,3-4")[1]["content-type"]
        tag = headers["etag"]
        assert get(server, "/abc", Range="bytes=2-4", If_Range=tag)[0] == 206
        assert get(server, "/abc", Range="bytes=2-4", If_Range='"old"')[0] == 200
        assert get(server, "/abc", If_None_Match=tag)[::2] == (304, "")
        assert get(server, "/abc", If_Modified_Since=headers["last-modified"])[::2] == (304, "")
        assert get(server, "/abc", If_None_Match='"old"')[0] == 200


@pytest.mark.parametrize(
    "words",
    [
        "items=0-1",
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=4-2",
        "bytes=0-1;2-3",
        "bytes=" + "0-0," * 50 + "1-1",
    ],
)
@pytest.mark.parametrize("size", [26, 26 * 10000], ids=["small", "large"])
def test_a_range_that_is_not_understood_is_ignored(root: Path, size: int, words: str) -> None:
    """Of other units, or in words that make no sense: the answer is the whole (RFC 9110, 14.2)."""
    (root / "abc").write_bytes(b"abcdefghijklmnopqrstuvwxyz" * (size // 26))
    with served(root) as server:
        status, headers, body = get(server, "/abc", Range=words)
        assert (status, len(body), "content-range" in headers) == (200, size, False)
        assert get(server, "/abc", "HEAD", Range="bytes=2-4")[0] == 200
        assert get(server, "/abc", Range="Bytes=2-4")[2] == "cde"


def test_a_compressed_file_is_served_in_place_of_the_plain_one(root: Path) -> None:
    """If it is beside it, and the client takes it; ranges and validators are those of what is served."""
    (root / "page.html").write_text("<p>plain")
    (root / "page.html.br").write_text("brotli")
    (root / "page.html.gz").write_text("gzip")
    with served(root, precompressed=True) as server:
        for accepted, encoding, body in (
            ("gzip, br", "br", "brotli"),
            ("gzip;q=1, br;q=0.5", "gzip", "gzip"),
            ("zstd", None, "<p>plain"),
            ("identity", None, "<p>plain"),
        ):
            status, headers, content = get(server, "/page.html", Accept_Encoding=accepted)
            assert (status, headers["content-encoding"], content) == (200, encoding, body)
            assert (headers["vary"], headers["content-type"]) == (
                "accept-encoding",
                "text/html; charset=utf-8",
            )
        tag = get(server, "/page.html", Accept_Encoding="br")[1]["etag"]
        assert get(server, "/page.html", Accept_Encoding="br", If_None_Match=tag)[0] == 304
        assert get(server, "/page.html", Accept_Encoding="gzip", If_None_Match=tag)[0] == 200
        assert get(server, "/page.html", Accept_Encoding="br", Range="bytes=0-1")[2] == "br"
        assert get(server, "/open.txt", Accept_Encoding="br")[1]["content-encoding"] is None
    with served(root) as server:
        assert get(server, "/page.html", Accept_Encoding="br")[2] == "<p>plain"


@pytest.mark.parametrize(
    ("header", "encodings"),
    [
        ("gzip, deflate, br, zstd", ["br", "zstd", "gzip"]),
        ("GZIP;q=0.9, br;q=0.1", ["gzip", "br"]),
        ("*", ["br", "zstd", "gzip"]),
        ("*;q=0.5, gzip, br;q=0", ["gzip", "zstd"]),
        ("br;q=2, gzip;q=x, zstd;", []),
        ("", []),
    ],
)
def test_encodings_are_taken_by_their_weight(header: str, encodings: list[str]) -> None:
    """And by ours among equals; what is malformed, or has the weight 0, is not accepted."""
    assert accepted_encodings(header) == encodings


def test_browsers_get_a_page_for_those_that_do_not_exist(root: Path) -> None:
    """An application whose pages are made by scripts has only one; what is no page is still not found."""
    (root / "app.html").write_text("the application")
    with served(root, fallback="app.html") as server:
        for path in ("/poems/7", "/poems/", "/%2e%2e/outside/secret.txt"):
            status, headers, body = get(server, path, Accept="text/html,*/*")
            assert (status, body) == (200, "the application")
            assert headers["content-type"] == "text/html; charset=utf-8"
            assert get(server, path, Accept="*/*")[0] == 404
        assert get(server, "/open.txt", Accept="text/html")[2] == "open\n"


def test_a_page_for_missing_ones_is_required_in_one_folder(root: Path, tmp_path: Path) -> None:
    """A start without it would only be noticed by the first browser that asks for a missing page."""
    other = tmp_path / "other"
    other.mkdir()
    (root / "app.html").write_text("the application")
    (root / "sub" / "index.html").write_text("the index")
    for name in ("app.html", "sub/"):
        with served(root, fallback=name, mount=[MountAt("", "/other", other)]) as server:
            assert get(server, "/poems/7", Accept="text/html")[0] == 200
            assert get(server, "/other/7", Accept="text/html")[0] == 404
    for name, why in (("nope.html", "No such file"), ("sub", "Is a directory"), (".hidden", "No such file")):
        with pytest.raises(ServiceFailed, match=f"cannot serve the fallback {name}: {why}.*name a file in"):
            served(root, fallback=name).__enter__()


def test_a_directory_stands_for_its_index(root: Path) -> None:
    """Without a slash at its end it is redirected, and without an index it is not found."""
    (root / "sub" / "index.html").write_text("the index")
    with served(root) as server:
        assert get(server, "/sub/")[::2] == (200, "the index")
        status, headers, _ = get(server, "/sub?x=1")
        assert (status, headers["location"]) == (308, "./sub/?x=1")
        assert get(server, "//sub")[1]["location"] == "./sub/"
        assert get(server, "/")[0] == 404
        assert get(server, "/open.txt/")[0] == 404


@every_attempt
def test_nobody_gets_out_of_the_root(reading: Served[Service], attempt: str) -> None:
    """Neither as it is nor encoded, whole or in part: it is not found, or no request."""
    ways = {
        attempt,
        quote(attempt),
        quote(attempt, safe=""),
        attempt.replace("..", "%2e%2e").replace("/", "%2f"),
    }
    for way in ways:
        for target in (f"/{way}", f"http://host/{way}", f"/sub/../{way}", f"/sub/%2e%2e/{way}"):
            request = f"GET {target} HTTP/1.0\r\n\r\n".encode("latin-1", "replace")
            answer = raw(reading, request)
            assert re.match(rb"HTTP/1.1 (400|404|414) ", answer), target
            assert SECRET.encode() not in answer


def test_what_is_no_file_is_not_waited_for(root: Path) -> None:
    """A pipe that nobody writes to is not opened."""
    with served(root) as server:
        assert get(server, "/pipe")[0] == 404


def test_files_are_only_read(root: Path) -> None:
    """Every other method is refused, with those that are not."""
    with served(root) as server:
        for method in ("PUT", "POST", "DELETE", "OPTIONS"):
            status, headers, _ = get(server, "/open.txt", method, b"x")
            assert (status, headers["allow"]) == (405, "GET, HEAD")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Tell who asked, how, and what with (ASGI)."""
    if scope["type"] != "http":
        raise ValueError("no lifespan here")
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    told = f"{scope['scheme']} {scope['client'][0]} {scope['path']} {len(body)}".encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]}
    )
    await send({"type": "http.response.body", "body": told})


def classic(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Tell the same (WSGI)."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("content-type", "text/plain")])
    return [
        f"{environ['wsgi.url_scheme']} {environ['REMOTE_ADDR']} {environ['PATH_INFO']} {len(body)}".encode()
    ]


@pytest.mark.parametrize("application", [echo, classic])
def test_an_application_is_served(module: ModuleType, application: object) -> None:
    """Of either kind, with all of a long body."""
    module.app = application  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        assert get(server, "/a%20b")[::2] == (200, "http 127.0.0.1 /a b 0")
        assert get(server, "/", "POST", bytes(1 << 20))[2] == f"http 127.0.0.1 / {1 << 20}"


def test_forwarded_headers_are_believed_if_the_proxy_is_trusted(module: ModuleType) -> None:
    """And not otherwise."""
    module.app = echo  # type: ignore[attr-defined]
    fields = {"X_Forwarded_For": "192.0.2.1, 198.51.100.7", "X_Forwarded_Proto": "https"}
    with served(app="web_test_app:app") as server:
        assert get(server, "/", **fields)[2] == "http 127.0.0.1 / 0"
    with served(app="web_test_app:app", trust=["127.0.0.0/8", "198.51.100.7"]) as server:
        assert get(server, "/", **fields)[2] == "https 192.0.2.1 / 0"
        fields["X_Forwarded_Proto"] = "wss"  # of a WebSocket
        assert get(server, "/", **fields)[2] == "https 192.0.2.1 / 0"


FORWARDED = {
    "192.0.2.1": "192.0.2.1",
    "192.0.2.1:5555": "192.0.2.1",
    "[2001:db8::1]:5555": "2001:db8::1",
    "2001:db8::1": "2001:db8::1",
    "::ffff:192.0.2.1": "192.0.2.1",
    "rubbish, 192.0.2.1": "192.0.2.1",
    "192.0.2.1, 127.0.0.2": "192.0.2.1",
    "127.0.0.3, 127.0.0.2": "127.0.0.3",
    # No addresses: nothing is believed.
    "rubbish": "127.0.0.1",
    "192.0.2.1, rubbish": "127.0.0.1",
    "192.0.2.1, rubbish, 127.0.0.2": "127.0.0.1",
    "192.0.2.1:99999": "127.0.0.1",
    "192.0.2.1:": "192.0.2.1",
    '<b>"': "127.0.0.1",
    "": "127.0.0.1",
    "192.0.2.1,": "127.0.0.1",
}


@pytest.mark.parametrize(("said", "believed"), FORWARDED.items())
def test_what_is_no_address_is_not_believed(
    module: ModuleType, caplog: pytest.LogCaptureFixture, said: str, believed: str
) -> None:
    """The client is the proxy then, for the application and in the log."""
    module.app = echo  # type: ignore[attr-defined]
    caplog.set_level("INFO")
    with served(app="web_test_app:app", trust=["127.0.0.0/8"]) as server:
        assert get(server, "/", X_Forwarded_For=said)[2] == f"http {believed} / 0"
    assert (f" [{believed}]:" if ":" in believed else f" {believed}:") in caplog.text
    assert "rubbish" not in caplog.text
    assert "<b>" not in caplog.text


def test_a_header_cannot_be_forged_by_an_underscore(module: ModuleType) -> None:
    """For WSGI it would be the same as one with a dash, which a proxy may have set."""

    def tell(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ.get("HTTP_X_USER", "nobody").encode()]

    module.app = tell  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        assert b"nobody" in raw(server, b"GET / HTTP/1.0\r\nX_User: root\r\n\r\n")
        assert b"ann" in raw(server, b"GET / HTTP/1.0\r\nX-User: ann\r\n\r\n")


def test_a_trailer_is_no_header(module: ModuleType) -> None:
    """It comes behind the body, and cannot add to what a proxy has let through."""

    async def tell(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            pass
        body = repr(scope["headers"]).encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    module.app = tell  # type: ignore[attr-defined]
    head = b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with served(app="web_test_app:app") as server:
        answer = raw(server, head + b"1\r\na\r\n0\r\nX-User: root\r\nHost: there\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"(b'host', b'here')" in answer
    assert b"x-user" not in answer
    assert b"there" not in answer


def lifespan(answers: dict[str, Any], seen: list[str]) -> Callable[..., Awaitable[None]]:
    """Make an application that answers in its lifespan as it is told."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await echo(scope, receive, send)
            seen.append(str(scope["state"]))
            return
        scope["state"]["database"] = "open"
        for event in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{event}"
            seen.append(event)
            await send({"type": f"lifespan.{event}.complete"} | answers.get(event, {}))

    return application


def test_an_application_is_notified_of_its_start_and_stop(module: ModuleType) -> None:
    """Before the first request, and after the last; what it keeps is in each request."""
    seen: list[str] = []
    module.app = lifespan({}, seen)  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        assert seen == ["startup"]
        assert get(server, "/")[0] == 200
    assert seen == ["startup", "{'database': 'open'}", "shutdown"]


def test_an_application_that_fails_to_start_fails_the_start(module: ModuleType) -> None:
    """With what it says."""
    failed = {"startup": {"type": "lifespan.startup.failed", "message": "no database"}}
    module.app = lifespan(failed, [])  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="failed to start: no database"), served(app="web_test_app:app"):
        pass


def test_an_application_that_raises_in_its_startup_fails_the_start(module: ModuleType) -> None:
    """With what it raised, if it has taken the event: it knows the protocol then."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        raise OSError("no database")

    module.app = broken  # type: ignore[attr-defined]
    with (
        pytest.raises(Exception, match="failed to start: OSError: no database"),
        served(app="web_test_app:app"),
    ):
        pass


def test_an_application_that_raises_in_its_shutdown_fails_the_stop(
    module: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """In the same way."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise OSError("no farewell")

    module.app = broken  # type: ignore[attr-defined]
    with suppress(Exception), served(app="web_test_app:app"):
        pass
    assert "failed to stop: OSError: no farewell" in caplog.text


def test_a_lifespan_that_fails_while_it_serves_is_logged(
    module: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """And requests are served on."""

    async def fragile(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await echo(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise OSError("no patience")

    module.app = fragile  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        assert get(server, "/")[0] == 200
    assert "lifespan has failed" in caplog.text


def test_an_application_that_raises_answers_500(module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """The traceback is in the log, and the service goes on."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("no rhyme")

    module.app = broken  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        assert [get(server, "/")[0] for _ in range(2)] == [500, 500]
    assert "ValueError: no rhyme" in caplog.text


def test_what_an_application_does_after_the_answer_is_waited_for(module: ModuleType) -> None:
    """A stop does not cut it, though its client is gone."""
    done: list[str] = []

    async def thorough(scope: Any, receive: Any, send: Any) -> None:
        await echo(scope, receive, send)
        await asyncio.sleep(0.2)
        done.append("all")

    module.app = thorough  # type: ignore[attr-defined]
    with served(app="web_test_app:app") as server:
        get(server, "/")
    assert done == ["all"]


REFUSED = {
    "long target": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", b"414"),
    "endless target": (b"GET /" + b"x" * 100000, b"414"),
    "long header": (b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"x" * 40000 + b"\r\n\r\n", b"431"),
    "endless header": (b"GET / HTTP/1.1\r\n" + b"X-Endless: " + b"x" * 400000, b"431"),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10000, b"431"),
    "empty lines": (b"\r\n" * 100000, b"431"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
    "words": (b"rubbish\r\n\r\n", b"400"),
    "bytes": (bytes(range(256)) * 10, b"400"),
    "target that is no ASCII": (b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", b"400"),
    "query that is no ASCII": (b"GET /?\xff HTTP/1.1\r\n\r\n", b"400"),
    "unknown version": (b"GET / HTTP/9.9\r\n\r\n", b"400"),
    "version of another protocol": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", b"505"),
    "version of old": (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", b"505"),
    "coding before chunks": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"501",
    ),
    "two codings": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"501",
    ),
    "chunks of old": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    "asterisk": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    "target of another scheme": (b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    "proxy": (b"CONNECT host:1 HTTP/1.1\r\n\r\n", b"400"),
    "two lengths": (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
    "length and chunks": (
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"400",
    ),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", b"400"),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", b"400"),
    "two hosts of old": (b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
    "a host that is none": (b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", b"400"),
    "header with a space": (b"GET / HTTP/1.1\r\nA b: c\r\n\r\n", b"400"),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_too_large_or_no_request_is_refused(root: Path, data: bytes, status: bytes) -> None:
    """With an answer that says so, and is the last on its connection."""
    with served(root) as server:
        answer = raw(server, data)
        assert answer.startswith(b"HTTP/1.1 " + status), answer[:100]
        assert b"connection: close" in answer
        assert get(server, "/open.txt")[0] == 200


def test_limits_can_be_set(root: Path) -> None:
    """To less, for example."""
    with served(root, max_head=Size("100 B"), max_request_line=Size("20 B")) as server:
        assert get(server, "/open.txt")[0] == 200
        assert get(server, "/open.txt?" + "x" * 20)[0] == 414
        assert get(server, "/open.txt", X="x" * 100)[0] == 431


@pytest.mark.parametrize(
    ("sent", "drip"),
    [(b"", b""), (b"GET /", b"x"), (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X"), (b"", b"\r\n")],
)
def test_a_head_that_does_not_come_is_not_waited_for(root: Path, sent: bytes, drip: bytes) -> None:
    """The connection is cut, also if a byte comes now and then."""
    with served(root, head_timeout=Duration("300ms")) as server, server.connect() as client:
        client.sendall(sent)
        client.settimeout(0.05)
        with suppress(ConnectionError):
            while True:
                with suppress(TimeoutError):
                    assert client.recv(100) == b""
                    break
                client.sendall(drip)


def test_a_body_that_does_not_come_is_not_waited_for(module: ModuleType) -> None:
    """The connection is cut."""
    module.app = echo  # type: ignore[attr-defined]
    with served(app="web_test_app:app", stall=Duration("200ms")) as server:
        assert raw(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf") == b""
        assert get(server, "/")[0] == 200


def test_connections_are_kept_for_some_time(root: Path) -> None:
    """For another request, and then closed."""
    with served(root, keep_alive=Duration(PATIENCE)) as server, client_of(server) as client:
        for _ in range(3):
            client.request("GET", "/open.txt")
            assert client.getresponse().read() == b"open\n"
    with served(root, keep_alive=Duration("200ms")) as server, client_of(server) as client:
        client.request("GET", "/open.txt")
        assert client.getresponse().read() == b"open\n"
        assert client.sock.recv(1) == b""


def test_a_request_that_was_sent_before_the_stop_is_answered(root: Path) -> None:
    """Though it has not been looked at yet, on a connection that was idle."""
    blocked = threading.Event()

    async def block() -> None:
        blocked.set()
        time.sleep(0.3)  # noqa: ASYNC251 - while the event loop stands, the request and the stop arrive

    request = b"GET /open.txt HTTP/1.1\r\nHost: x\r\n\r\n"
    with served(root) as server:
        client = server.connect()
        client.sendall(request)
        answers = client.makefile("rb")
        while answers.readline() != b"open\n":
            pass
        blocking = threading.Thread(target=lambda: server.run(block()))
        blocking.start()
        blocked.wait(PATIENCE)
        client.sendall(request)
    with client, answers:
        answer = answers.read()
    blocking.join()
    assert b"connection: close" in answer
    assert answer.endswith(b"open\n")


def test_requests_may_be_sent_ahead(root: Path) -> None:
    """They are answered in their order."""
    with served(root) as server:
        ahead = b"GET /open.txt HTTP/1.1\r\nHost: x\r\n\r\n" * 500 + b"GET /sub/deep.txt HTTP/1.0\r\n\r\n"
        answer = raw(server, ahead)
        assert answer.count(b"open\n") == 500
        assert answer.endswith(b"deep\n")


def test_requests_with_bodies_may_be_sent_ahead(module: ModuleType) -> None:
    """Whatever a body looks like, whether it is read or not, and if what comes behind it is refused."""
    module.app = echo  # type: ignore[attr-defined]
    body = b"GET / HTTP/1.1\r\n\r\n\n\n" * 1000
    request = b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with served(app="web_test_app:app") as server:
        answer = raw(
            server,
            b"".join(request % (number, len(body)) + body for number in range(20)) + b"no request\r\n\r\n",
        )
    told = [f"/{number} {len(body)}".encode() for number in range(20)]
    assert [line for line in told if line in answer] == told
    assert b"400 Bad Request" in answer


def test_one_address_has_so_many_connections(root: Path) -> None:
    """More are closed at once."""
    with (
        served(root, max_connections_per_address=2) as server,
        client_of(server) as one,
        client_of(server) as two,
    ):
        for client in (one, two):
            client.request("GET", "/open.txt")
            client.getresponse().read()
        assert raw(server, b"GET /open.txt HTTP/1.0\r\n\r\n") == b""


REQUEST = (
    b"POST /sub/deep.txt?q HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
)


def test_clients_may_leave_at_every_byte(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """None of them is more than a connection that is over."""
    with served(root, max_connections_per_address=1000) as server:
        for end in range(len(REQUEST)):
            with server.connect() as client:
                client.sendall(REQUEST[:end])
        assert get(server, "/open.txt")[0] == 200
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_every_request_is_logged(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On one line, whatever is in it, unless nobody wants that."""
    caplog.set_level("INFO")
    with served(root) as server:
        get(server, "/open.txt?a=%0d%0aforged")
    assert re.search(r'127.0.0.1:\d+ - "GET /open.txt\?a=%0d%0aforged HTTP/1.1" 200', caplog.text)
    caplog.clear()
    with served(root, access_log=False) as server:
        get(server, "/open.txt")
    assert "open.txt" not in caplog.text


@pytest.mark.parametrize(
    ("name", "error", "why"),
    [
        ("nonsense", ConfigurationError, "PACKAGE.MODULE:VARIABLE"),
        ("no_such_module:app", MissingInput, "--app-dir"),
        ("json:app", ApplicationFailed, "no variable 'app'"),
        ("sys:path", ApplicationFailed, "cannot be called"),
    ],
)
def test_a_name_that_leads_to_no_application_is_explained(
    name: str, error: type[Exception], why: str
) -> None:
    """By whose fault it is."""
    with pytest.raises(error, match=why):
        load(name)


def test_an_application_is_found_in_the_folder_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not in others."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "web_test_found.py").write_text("def app(environ, start_response): ...\n")
    assert interface_of(load("web_test_found:app", tmp_path)) == "wsgi"
    del sys.modules["web_test_found"]


def test_a_module_that_exits_while_it_is_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its status is that of the process, which would end without a word otherwise."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "web_test_leaving.py").write_text("raise SystemExit(3)")
    with caplog.at_level("INFO"), pytest.raises(SystemExit, match="3"):
        load("web_test_leaving:app", tmp_path)
    assert caplog.messages == ["web_test_leaving, while it was imported, asked to exit with status 3"]


@pytest.mark.parametrize(
    "options",
    [{}, {"app": "x:y", "root": Path()}, {"root": Path(), "trust": ["localhost"]}],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=r"either|localhost"):
        Options(**options)


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served[Service]]:
    """Serve an empty directory to all examples of a test."""
    with served(tmp_path_factory.mktemp("empty")) as server:
        yield server


@given(st.binary(max_size=200))
def test_whatever_comes_is_answered_or_closed(one_server: Served[Service], data: bytes) -> None:
    """And never with an error of ours."""
    with one_server.connect() as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert not client.makefile("rb").read().startswith(b"HTTP/1.1 500")
