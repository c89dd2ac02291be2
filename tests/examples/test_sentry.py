"""The example with Sentry, with the real SDK, against a server that keeps what is sent."""

import gzip
import json
import os
import queue
import shutil
import signal
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.examples.test_examples import EXAMPLES
from tests.patience import PATIENCE
from tests.supervised.conftest import tamed
from tests.supervised.daemon import Tamed
from tests.threaded import in_thread

__all__ = ["tamed"]  # a fixture


class Project:
    """What a project of Sentry has got: the items of all envelopes that are events."""

    def __init__(self, port: int) -> None:
        self.dsn = f"http://key@127.0.0.1:{port}/1"
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def take(self, envelope: bytes) -> None:
        """Keep the events of an envelope: a head, then items, each with a head of its own, a line each."""
        lines = envelope.split(b"\n")[1:]
        for head, item in zip(lines[::2], lines[1::2], strict=False):
            if json.loads(head)["type"] == "event":
                self._events.put(json.loads(item))

    def next_event(self) -> dict[str, Any]:
        """Return the next event."""
        return self._events.get(timeout=PATIENCE)


@pytest.fixture
def project() -> Iterator[Project]:
    """Serve a project on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        received = Project(port)
        yield received


def test_sentry_gets_exceptions_and_deaths(tamed: Tamed, project: Project) -> None:
    """The exception of a handler, with its traceback; and the death of a worker, from the other one."""
    file = tamed.folder / "poet.py"
    shutil.copy(EXAMPLES / "sentry" / "poet.py", file)
    file.write_text(file.read_text("utf-8").replace("localhost:10000", "127.0.0.1:0"), "utf-8")
    daemon = tamed.start("--workers", "2", "--preload", file, env={"SENTRY_DSN": project.dsn})
    with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as client:
        client.sendall(b"7\n")
        exception = project.next_event()
    (error,) = exception["exception"]["values"]
    assert (error["type"], error["stacktrace"]["frames"][-1]["function"]) == ("IndexError", "recite")

    os.kill(daemon.workers()[0], signal.SIGKILL)
    death = project.next_event()
    assert death["contexts"]["event"]["event"] == "death"
    assert "SIGKILL" in death["message"]
