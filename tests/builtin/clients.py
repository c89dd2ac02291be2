"""Real programs as clients, and a server of theirs that a test can ask what it saw."""

import shutil
import socketserver
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.patience import PATIENCE
from tests.threaded import in_thread


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test when a program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(*command: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end."""
    return subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE, check=False)


class _Handler(socketserver.StreamRequestHandler):
    """Answers an HTTP request with a line, and everything else with what it was."""

    def handle(self) -> None:
        first = self.rfile.readline()
        if first.startswith(b"GET "):
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nBusy old fool, unruly sun\n")
        else:
            self.wfile.write(first + self.rfile.read())


@contextmanager
def target() -> Iterator[int]:
    """Run a server on the loopback interface that tells what it was sent; give its port."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    with in_thread(server) as port:
        yield port
