"""Real programs that others wrote for twistd, unchanged: Scrapyd and Magic Wormhole's mailbox server.

They are installed, as released, into an environment of their own, which takes the network and a minute.
"""

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import urllib.parse
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tamed
from tests.patience import PATIENCE
from tests.supervised.daemon import is_there, wait_for

pytestmark = pytest.mark.long

PROGRAMS = ("scrapyd", "magic-wormhole-mailbox-server")
OURS = ("uvloop>=0.21",)

SPIDER = """
import scrapy

class Poem(scrapy.Spider):
    name = "poem"
    start_urls = ["data:text/plain,Where%2C%20like%20a%20pillow"]

    def parse(self, response):
        with open(self.into, "w") as file:
            file.write(response.text)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that has the programs, and what Tamed needs."""
    folder = tmp_path_factory.mktemp("others") / "venv"
    venv.create(folder, with_pip=True)
    made = folder / "bin" / "python"
    command = [str(made), "-m", "pip", "install", "--quiet", "--prefer-binary", *PROGRAMS, *OURS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    if done.returncode and "CI" not in os.environ:
        pytest.skip(f"they cannot be installed: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return made


class Daemon:
    """A daemon that the command of an environment has started."""

    def __init__(self, python: Path, folder: Path, *words: str) -> None:
        self._python = python
        self._folder = folder
        told = self.tamed("start", *words)
        found = re.fullmatch(r"(\S+) is ready: pid (\d+), listening on \S+:(\d+)\n", told)
        assert found is not None, told
        self.name, self.pid, self.port = found[1], int(found[2]), int(found[3])

    def tamed(self, *words: str) -> str:
        """Run the command, which must succeed; return what it says."""
        environ = {
            **os.environ,
            "TAMED_RUNDIR": str(self._folder / "run"),
            "LOGS_DIRECTORY": str(self._folder / "logs"),
            "PYTHONPATH": str(Path(tamed.__file__).parents[1]),
        }
        command = [str(self._python), "-m", "tamed", *words]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        log = "".join(file.read_text() for file in (self._folder / "logs").rglob("*.log"))
        assert done.returncode == 0, done.stderr + log
        return done.stdout


@contextmanager
def daemon(python: Path, folder: Path, *words: str) -> Iterator[Daemon]:
    """Start a daemon and stop it; nothing of it may be left but the log."""
    started = Daemon(python, folder, *words)
    try:
        yield started
        started.tamed("stop", started.name)
    finally:
        if is_there(started.pid):
            os.kill(started.pid, signal.SIGKILL)
    left = [path for path in (folder / "run").rglob("*") if path.is_file() and path.suffix != ".log"]
    assert left == []


def ask(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    """Ask a web service, and return its answer in JSON."""
    request = urllib.request.Request(url, data, headers or {})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.loads(answer.read())


def egg() -> bytes:
    """Return a project with one spider, as Scrapyd takes it."""
    files = {
        "EGG-INFO/PKG-INFO": "Metadata-Version: 1.0\nName: verse\nVersion: 1.0\n",
        "EGG-INFO/entry_points.txt": "[scrapy]\nsettings = verse.settings\n",
        "verse/__init__.py": "",
        "verse/settings.py": "SPIDER_MODULES = ['verse.spiders']\n",
        "verse/spiders/__init__.py": SPIDER,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def form(fields: dict[str, str], **files: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body of a form with files, and its headers."""
    parts = [
        f'--verse\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts += [
        f'--verse\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in files.items()
    ]
    return b"".join(parts) + b"--verse--\r\n", {"Content-Type": "multipart/form-data; boundary=verse"}


def test_scrapyd_runs_a_spider(python: Path, tmp_path: Path) -> None:
    """It is deployed and scheduled over HTTP, and its process is started and noticed to have ended."""
    with socket.create_server(
        ("127.0.0.1", 0)
    ) as sock:  # it has no way to take a port that the kernel chooses
        port = sock.getsockname()[1]
    (tmp_path / "scrapyd.conf").write_text(
        f"[scrapyd]\nhttp_port = {port}\npoll_interval = 0.2\n"
        "eggs_dir = eggs\nlogs_dir = logs\ndbs_dir = dbs\n"
    )
    with daemon(python, tmp_path, "scrapyd.txapp:application") as started:
        here = f"http://127.0.0.1:{started.port}"
        body, headers = form({"project": "verse", "version": "1"}, egg=egg())
        assert ask(f"{here}/addversion.json", body, headers)["spiders"] == 1
        wanted = {"project": "verse", "spider": "poem", "into": str(tmp_path / "poem.txt")}
        assert ask(f"{here}/schedule.json", urllib.parse.urlencode(wanted).encode())["status"] == "ok"

        def finished() -> bool:
            return bool(ask(f"{here}/listjobs.json?project=verse")["finished"])

        wait_for("the spider", finished)
        assert (tmp_path / "poem.txt").read_text() == "Where, like a pillow"


def test_the_mailbox_server_welcomes_a_client(python: Path, tmp_path: Path) -> None:
    """Its plugin is found by its name, and a web socket is opened."""
    words = ("wormhole-mailbox", "--port", "tcp:0:interface=127.0.0.1", "--channel-db", "channels.sqlite")
    with daemon(python, tmp_path, *words) as started:
        heard = open_web_socket(started.port, until=b'"welcome"')
    assert heard.startswith(b"HTTP/1.1 101 ")


def open_web_socket(port: int, until: bytes) -> bytes:
    """Open a web socket (RFC 6455), and read until something is heard."""
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET /v1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(head.encode())
        while until not in heard:
            more = sock.recv(4096)
            assert more, heard
            heard += more
    return heard
