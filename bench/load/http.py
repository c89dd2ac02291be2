"""Clients of the web: requests on kept connections, by h2load, and messages of WebSockets that are echoed."""

import re
import socket
import subprocess
from contextlib import ExitStack
from shutil import which

from bench.machine import LOAD_CORE
from bench.process import HOST

__all__ = ["H2LOAD", "echo", "requests"]

H2LOAD = "" if which("h2load") else "apt install nghttp2-client"
"""What is missing for `requests`."""

_TEXT = b"twelve bytes"
_SECONDS = 60.0  # until a client that waits is given up


def requests(port: int, count: int, *, path: str, clients: int, streams: int = 0) -> int:
    """Make so many requests, and return how many were answered as they should be.

    ``streams`` are those of each connection at a time, over HTTP/2; with none it is HTTP/1.1.
    """
    version = ["-m", str(streams)] if streams else ["--h1"]
    url = f"http://{HOST}:{port}{path}"
    words = ["h2load", *version, "-t", "1", "-c", str(clients), "-n", str(count), url]
    found = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), *words], capture_output=True, text=True, check=True
    ).stdout
    right = re.search(r"^status codes: (\d+) 2xx", found, re.MULTILINE)
    if right is None:
        raise RuntimeError(f"h2load tells no status codes: {found}")
    return int(right[1])


def echo(port: int, count: int, *, clients: int) -> int:
    """Send so many messages over WebSockets, ``clients`` of them at a time; return how many came back."""
    # A client's frames are masked (RFC 6455, 5.3); by zeros, the text stays as it is.
    sent = b"\x81" + bytes([0x80 | len(_TEXT)]) + bytes(4) + _TEXT
    expected = b"\x81" + bytes([len(_TEXT)]) + _TEXT
    right = 0
    with ExitStack() as stack:
        addresses = [(HOST, port)] * clients
        sockets = [stack.enter_context(socket.create_connection(each, _SECONDS)) for each in addresses]
        for each in sockets:
            _begin(each)
        for _ in range(-(-count // clients)):
            for each in sockets:
                each.sendall(sent)
            right += sum(_read(each, len(expected)) == expected for each in sockets)
    return right


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
