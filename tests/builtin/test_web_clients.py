"""The web with real clients and real processes."""

import http.client
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tamed.testing.process import TamedProcess
from tests.builtin.attempts import SECRET, make_tree
from tests.builtin.http2_client import Http2Client
from tests.builtin.real_clients import needs, run
from tests.patience import PATIENCE, ROUNDS
from tests.supervised.forked import service

PAGE = """<html><body><p id="told">nothing</p><script src="script.js"></script></body></html>"""
SCRIPT = """document.getElementById("told").textContent = "six is " + 2 * 3"""

APPLICATION = """
import asyncio

async def application(scope, receive, send):
    await asyncio.sleep(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"done\\n"})

def classic(environ, start_response):
    start_response("200 OK", [("content-length", "5")])
    return [b"done\\n"]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a directory with a page, and secrets beside it."""
    root = make_tree(tmp_path)
    (root / "index.html").write_text(PAGE)
    (root / "script.js").write_text(SCRIPT)
    return root


@contextmanager
def serving(
    *arguments: str | Path, cwd: Path | None = None, before: tuple[str, ...] = ()
) -> Iterator[tuple[TamedProcess, str]]:
    """Run ``tamed run web``; yield the process and its address."""
    with service(*before, "web", "--port", "0", *arguments, cwd=cwd) as process:
        address = process.expect(r"listening on (\S+)")[1]
        process.expect("is ready(:|$)")
        yield process, address


@needs("curl")
def test_curl_reads_what_it_may(root: Path) -> None:
    """Files and parts of them; nothing outside, and nothing hidden."""
    with serving("--root", root) as (process, address):
        url = f"http://{address}"
        assert run("curl", "-sSf", f"{url}/sub/deep.txt").stdout == "deep\n"
        assert run("curl", "-sSf", "-r", "1-2", f"{url}/open.txt").stdout == "pe"
        assert run("curl", "-sSf", "--http2", f"{url}/open.txt").stdout == "open\n"
        for attempt in (
            "../outside/secret.txt",
            "out",
            "out-dir/secret.txt",
            ".hidden",
            "%2e%2e/outside/secret.txt",
        ):
            done = run("curl", "-sS", "--path-as-is", "-w", "%{http_code}", f"{url}/{attempt}")
            assert done.stdout.endswith("404")
            assert SECRET not in done.stdout
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert re.search(r'web.access: 127.0.0.1:\d+ - "GET /sub/deep.txt HTTP/1.1" 200', process.output)


@needs("curl")
@needs("h2load")
def test_http2_is_spoken_with_clients_that_can(root: Path, tmp_path: Path) -> None:
    """Over TLS by agreement, in clear text by prior knowledge; under load; others are served as before."""
    (root / "large.bin").write_bytes(b"verse" * 200_000)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    show = "-sSf", "-o", tmp_path / "got", "-w", "%{http_version}", "--cacert", tmp_path / "ca.pem"
    with serving("--root", root, "--http2") as (_, address):
        clear = f"http://{address}/large.bin"
        assert run("curl", *show, "--http2-prior-knowledge", clear).stdout == "2"
        assert (tmp_path / "got").read_bytes() == b"verse" * 200_000
        assert run("curl", *show, clear).stdout == "1.1"
        done = run("h2load", "-n", "300", "-c", "5", "-m", "20", f"http://{address}/open.txt", clear)
        assert "300 succeeded, 0 failed, 0 errored" in done.stdout
    tls = f"tls://localhost:0?cert={tmp_path}/cert.pem"
    with serving("--root", root, "--http2", "--listen", tls) as (_, address):
        url = f"https://localhost:{address.rpartition(':')[2]}/large.bin"
        assert run("curl", *show, url).stdout == "2"
        assert (tmp_path / "got").read_bytes() == b"verse" * 200_000
        assert run("curl", *show, "--http1.1", url).stdout == "1.1"
    with serving("--root", root, "--listen", tls) as (_, address):
        url = f"https://localhost:{address.rpartition(':')[2]}/large.bin"
        assert run("curl", *show, url).stdout == "1.1"


@needs("chromium")
def test_a_browser_shows_a_page_and_runs_its_script(root: Path, tmp_path: Path) -> None:
    """Which it does only if the types are right."""
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync"
    )
    with serving("--root", root) as (_, address):
        profile = f"--user-data-dir={tmp_path}/profile"
        done = run("chromium", *options.split(), profile, "--dump-dom", f"http://{address}/")
    assert '<p id="told">six is 6</p>' in done.stdout


@needs("h2load")
@pytest.mark.parametrize("what", ["files", "application", "classic"])
def test_no_request_of_a_load_generator_fails(root: Path, tmp_path: Path, what: str) -> None:
    """Of many at the same time, on connections that are kept."""
    (tmp_path / "load_app.py").write_text(APPLICATION)
    application: list[str | Path] = ["--app", f"load_app:{what}", "--app-dir", tmp_path]
    files: list[str | Path] = ["--root", root]
    with serving(*(files if what == "files" else application), "--no-access-log") as (_, address):
        done = run("h2load", "--h1", "-c", "50", "-n", str(1000 * ROUNDS), f"http://{address}/")
    assert f"{1000 * ROUNDS} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    assert f"status codes: {1000 * ROUNDS} 2xx" in done.stdout


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["solo", "workers"])
def test_no_request_is_lost_by_a_stop(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """Every request that was sent is answered; the last answer on a connection says that it is the last.

    Over HTTP/2 GOAWAY says so, and what was requested behind the stream that it names may be repeated.
    """
    (tmp_path / "load_app.py").write_text(APPLICATION)
    arguments: list[str | Path] = ["--app", "load_app:application", "--app-dir", tmp_path, "--no-access-log"]
    with serving(*arguments, "--http2", before=workers) as (process, address):
        clients = [*(Client(address) for _ in range(15)), *(Client2(address) for _ in range(5))]
        for client in clients:
            client.answered.wait(PATIENCE)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    for client in clients:
        client.join(PATIENCE)
    assert [client.fault for client in clients if client.fault] == []
    assert "aborts connections that did not end" not in process.output


def test_an_idle_connection_does_not_hold_a_stop(root: Path) -> None:
    """It is closed at once."""
    with serving("--root", root, "--keep-alive", "1h") as (process, address):
        client = http.client.HTTPConnection(address, timeout=PATIENCE)
        client.request("GET", "/open.txt")
        assert client.getresponse().read() == b"open\n"
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        client.close()


def test_an_application_that_fails_to_start_is_reported_on_the_terminal(tmp_path: Path) -> None:
    """With the status of an application that failed."""
    (tmp_path / "bad_app.py").write_text(
        "async def application(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    arguments: list[str | Path] = ["--port", "0", "--app", "bad_app:application", "--app-dir", tmp_path]
    with service("web", *arguments) as process:
        assert process.wait() == 70
    assert "the web application failed to start: no database" in process.output


@pytest.mark.parametrize("event", ["startup", "shutdown"])
@pytest.mark.parametrize("says", [True, False], ids=["says", "raises"])
def test_what_an_application_raises_in_its_lifespan_has_a_traceback(
    tmp_path: Path, event: str, says: bool
) -> None:
    """Once, and in one line the exception; also if it says it first, as Starlette does: with a traceback."""
    (tmp_path / "raising_app.py").write_text(
        "import traceback\n"
        "async def application(scope, receive, send):\n"
        "    assert scope['type'] == 'lifespan'\n"
        "    await receive()\n"
        f"    if {event == 'shutdown'}:\n"
        "        await send({'type': 'lifespan.startup.complete'})\n"
        "        await receive()\n"
        "    try:\n"
        "        {}['database']\n"
        "    except KeyError:\n"
        f"        if {says}:\n"
        f"            said = {{'type': 'lifespan.{event}.failed', 'message': traceback.format_exc()}}\n"
        "            await send(said)\n"
        "        raise\n"
    )
    arguments: list[str | Path] = ["--port", "0", "--app", "raising_app:application", "--app-dir", tmp_path]
    with service("web", *arguments) as process:
        if event == "shutdown":
            process.expect("web is ready")
            process.signal(signal.SIGTERM)
        assert process.wait() == 70
    what = {"startup": "start", "shutdown": "stop"}[event]
    assert re.search(
        rf"the web application failed to {what}: KeyError: 'database'$", process.output, re.MULTILINE
    )
    assert process.output.count('raising_app.py", line 9, in application') == 1


class Client(threading.Thread):
    """Asks for one thing after another on one connection, until an answer says that it is the last."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.answered = threading.Event()
        self.fault = ""
        self._address = address
        self.start()

    def run(self) -> None:
        """Ask."""
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        answered_at = idle = 0.0
        try:
            while True:
                connection.request("GET", "/")
                idle = time.monotonic() - answered_at if answered_at else 0.0
                response = connection.getresponse()
                self.fault = "" if response.read() == b"done\n" else "half an answer"
                self.answered.set()
                answered_at = time.monotonic()
                if self.fault or response.will_close:
                    break
        except (OSError, http.client.HTTPException) as error:
            # After a second of silence, which a busy machine can cause, the connection may have been closed.
            self.fault = repr(error) if idle < 1 else ""
        finally:
            connection.close()


class Client2(Client):
    """Asks for ten things at a time over HTTP/2, until the server goes away."""

    def run(self) -> None:
        """Ask."""
        host, _, port = self._address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), PATIENCE) as sock, Http2Client(sock) as client:
                while not client.goaways and not self.fault:
                    self._ask(client)
                client.to_the_end()
        except OSError as error:
            self.fault = repr(error)

    def _ask(self, client: Http2Client) -> None:
        numbers = [client.request() for _ in range(10)]
        answers = [client.answer(number) for number in numbers]
        last = client.goaways[-1][0] if client.goaways else 2**31 - 1
        owed = [answer for number, answer in zip(numbers, answers, strict=True) if number <= last]
        if any(answer.body != b"done\n" for answer in owed):
            self.fault = f"no answer on a stream up to {last}"
        self.answered.set()
