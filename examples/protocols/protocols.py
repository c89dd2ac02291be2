"""The same poem over TCP, UDP, HTTP and XML-RPC at once: a service knows nothing of protocols.

The HTTP takes a library: pip install h11.

Tamed run examples/protocols/protocols.py, then each of
    nc localhost 10000
    echo | nc -u -w1 localhost 10000
    curl http://localhost:10001/
    python -c 'from xmlrpc.client import *; print(ServerProxy("http://localhost:10001/RPC2").poem())'
"""

import asyncio
import logging
from pathlib import Path
from typing import Any, cast

from poetry_http import serve_http  # the modules beside this file can be imported
from poetry_xmlrpc import answer_call

from tamed import Application, DatagramServer, Service, StreamServer

log = logging.getLogger("protocols")


class Poetry(Service):
    """Holds the poem."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="poetry")
        self.path = path

    async def start(self) -> None:
        self.poem = self.path.read_bytes()
        log.info("loaded a poem from: %s", self.path)


poetry = Poetry(Path(__file__).parent.parent / "poetry" / "science.txt")


async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(poetry.poem)


class OverUdp(asyncio.DatagramProtocol):
    """Answers each packet with the poem, which fits into one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(poetry.poem, address)


def web_page(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
    """Answer an HTTP request: the poem, or a call of XML-RPC, which is a POST."""
    if method == "POST" and path == "/RPC2":
        return 200, "text/xml", answer_call(body, {"poem": poetry.poem.decode})
    if path != "/":
        return 404, "text/plain; charset=utf-8", b"there is one poem, at /\n"
    if method not in ("GET", "HEAD"):
        return 405, "text/plain; charset=utf-8", b"the poem can only be read\n"
    return 200, "text/plain; charset=utf-8", poetry.poem


async def over_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await serve_http(reader, writer, web_page)


application = Application(
    "protocols",
    poetry,
    StreamServer("localhost:10000", over_tcp, name="tcp"),
    DatagramServer("localhost:10000", OverUdp, name="udp"),
    StreamServer("localhost:10001", over_http, name="http"),
)
