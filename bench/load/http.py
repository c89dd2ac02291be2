"""Clients of the web: requests on kept connections and on new ones, and messages of WebSockets.

Those of HTTP/1.1 on kept connections are made by wrk, as h2load fails answers whose status has no phrase
(hypercorn's), and all others by h2load.
"""

import re
import socket
import subprocess
from contextlib import ExitStack
from shutil import which
from typing import NamedTuple

from bench.load import Load
from bench.machine import LOAD_CORE
from bench.process import HOST, programs

__all__ = ["H2LOAD", "WRK", "Answers", "connections", "echo", "kept", "requests"]

H2LOAD = "" if which("h2load") else "apt install nghttp2-client"
"""What is missing for `requests`."""

WRK = "" if which("wrk") else "apt install wrk"
"""What is missing for `kept`."""

_HELLO = programs / "hello.txt"  # what web_hello.py answers


class Answers(NamedTuple):
    """How many answers came as they should be, and how many did not."""

    right: int
    failed: int


_TEXT = b"twelve bytes"
_SECONDS = 60.0  # until a client that waits is given up


def requests(port: int, count: int, *, path: str, size: int, clients: int, streams: int = 0) -> Answers:
    """Make so many requests. An answer has ``size`` bytes.

    ``streams`` are those of each connection at a time, over HTTP/2; with none it is HTTP/1.1.
    """
    version = ["-m", str(streams)] if streams else ["--h1"]
    url = f"http://{HOST}:{port}{path}"
    found = _output("h2load", *version, "-t", "1", "-c", str(clients), "-n", str(count), url)
    told = re.search(r"^status codes: (\d+) 2xx.*\n^traffic:.* \((\d+)\) data", found, re.MULTILINE)
    if told is None:
        raise RuntimeError(f"h2load tells no status codes: {found}")
    right = min(int(told[1]), int(told[2]) // size)
    return Answers(right, count - right)


def kept(port: int, seconds: int, *, clients: int) -> Answers:
    """Make requests of HTTP/1.1 on connections that are kept, for so many seconds."""
    found = _output("wrk", "-t", "1", "-c", str(clients), "-d", f"{seconds}s", f"http://{HOST}:{port}/")
    total = re.search(r"^ *(\d+) requests in", found, re.MULTILINE)
    if total is None:
        raise RuntimeError(f"wrk tells no count of requests: {found}")
    wrong = re.search(r"^ *Non-2xx or 3xx responses: (\d+)", found, re.MULTILINE)
    broken = re.search(r"^ *Socket errors: (.*)", found, re.MULTILINE)
    other = int(wrong[1]) if wrong else 0
    cut = sum(map(int, re.findall(r"\d+", broken[1]))) if broken else 0
    return Answers(int(total[1]) - other, other + cut)


def connections(port: int, count: int, *, clients: int) -> Answers:
    """Make so many requests of HTTP/1.1, each on a connection of its own, which the server closes."""
    request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    where = (HOST, port)
    found = Load(where, [_HELLO], count, at_once=clients, send=request, http=True, cpu=LOAD_CORE).run()
    return Answers(found.ok, count - found.ok)


def _output(*words: str) -> str:
    command = ["taskset", "-c", str(LOAD_CORE), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def echo(port: int, count: int, *, clients: int) -> Answers:
    """Send so many messages over WebSockets, ``clients`` of them at a time, and read them again."""
    # A client's frames are masked (RFC 6455, 5.3); by zeros, the text stays as it is.
    sent = b"\x81" + bytes([0x80 | len(_TEXT)]) + bytes(4) + _TEXT
    expected = b"\x81" + bytes([len(_TEXT)]) + _TEXT
    right = total = 0
    with ExitStack() as stack:
        addresses = [(HOST, port)] * clients
        sockets = [stack.enter_context(socket.create_connection(each, _SECONDS)) for each in addresses]
        for each in sockets:
            _begin(each)
        for _ in range(-(-count // clients)):
            for each in sockets:
                each.sendall(sent)
            right += sum(_read(each, len(expected)) == expected for each in sockets)
            total += clients
    return Answers(right, total - right)


def _begin(opened: socket.socket) -> None:
    opened.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _read(opened, 1)
    if not head.startswith(b"HTTP/1.1 101"):
        raise RuntimeError(f"no WebSocket: {head.decode('latin-1')}")


def _read(opened: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = opened.recv(size - len(data))
        if not part:
            raise RuntimeError("the server has closed a connection")
        data += part
    return data
