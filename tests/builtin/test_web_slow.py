"""Clients of the web that read slowly, but go on, and those that send on behind the end: nothing is lost."""

import asyncio
import socket
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hyperframe.frame import WindowUpdateFrame

from tamed.net.server import Server
from tamed.plugins.values import Duration
from tamed.service.service import Service
from tamed.testing.running import Served
from tests.builtin.test_web import module, served
from tests.builtin.test_web_core import BODY, GET, HANDSHAKE, START
from tests.builtin.test_web_http2 import draining
from tests.builtin.test_web_leaving import until
from tests.net.certificates import client_of, make_files
from tests.patience import PATIENCE

__all__ = ["module"]  # a fixture

SIZE = 16_000_000
STALL = Duration("2s")
LARGE = b"\xff" * SIZE
REQUESTS = {
    "kept": GET.replace(b"Connection: close\r\n", b""),
    "last": GET,
    "unread body": GET.replace(b"Host", b"Content-Length: 100\r\nHost"),
    "websocket": HANDSHAKE,
}
MORE = ["last", "unread body", "websocket"]


async def large(scope: Any, receive: Any, send: Any) -> None:
    """Answer with much at once."""
    assert scope["type"] != "lifespan"
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": LARGE})
    else:
        await send(START | {"headers": [(b"content-length", b"%d" % SIZE)]})
        await send(BODY | {"body": LARGE})


def read_slowly(client: socket.socket, most: int) -> int:
    """Read up to some bytes of the large answer, three megabytes in a second; return how many came."""
    taken = 0
    while taken < most and (data := client.recv(250_000)):
        taken += data.count(LARGE[0])
        time.sleep(len(data) / 3e6)
    return taken


def is_draining(server: Served[Service]) -> bool:
    return any(part.draining.is_set() for part in server.service.walk() if isinstance(part, Server))


@pytest.mark.parametrize("name", ["kept", *(pytest.param(each, marks=pytest.mark.long) for each in MORE)])
def test_a_client_that_reads_slowly_is_not_cut(module: ModuleType, name: str) -> None:
    """Though all of the answer takes it longer than it may read nothing."""
    module.app = large  # type: ignore[attr-defined]
    with served(app="web_test_app:app", stall=STALL) as server, server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(REQUESTS[name])
        assert read_slowly(client, SIZE) == SIZE


@pytest.mark.long
@pytest.mark.parametrize("name", ["kept", "last"])
def test_a_client_that_reads_slowly_over_tls_is_not_cut(
    module: ModuleType, tmp_path: Path, name: str
) -> None:
    """And reads the end of TLS, too; there is a second buffer below it."""
    module.app = large  # type: ignore[attr-defined]
    files = make_files(tmp_path / "tls", trustme.CA())
    with served(app="web_test_app:app", listen=[files.endpoint], stall=STALL, keep_alive=STALL) as server:
        sock = server.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        with client_of(files).wrap_socket(
            sock, server_hostname="localhost", suppress_ragged_eofs=False
        ) as client:
            client.sendall(REQUESTS[name])
            assert read_slowly(client, SIZE) == SIZE
            assert client.recv(1) == b""


@pytest.mark.parametrize("window", [65_535, pytest.param(1 << 30, marks=pytest.mark.long)])
def test_a_client_of_http2_that_reads_slowly_is_not_cut(module: ModuleType, window: int) -> None:
    """Whether its window holds the answer up, or the connection."""
    module.app = large  # type: ignore[attr-defined]
    http2 = H2Connection()
    http2.initiate_connection()
    http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
    http2.increment_flow_control_window(window)
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/")]
    http2.send_headers(1, fields, end_stream=True)
    with served(app="web_test_app:app", stall=STALL, http2=True) as server, server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(http2.data_to_send())
        taken = 0
        while taken < SIZE and (part := read_slowly(client, 1)):
            taken += part
            if window < SIZE:
                frames = (WindowUpdateFrame(number, window_increment=part) for number in (0, 1))
                client.sendall(b"".join(frame.serialize() for frame in frames))
        assert SIZE <= taken < SIZE + 100  # some are of other frames


@pytest.mark.parametrize("name", ["kept", pytest.param("unread body", marks=pytest.mark.long)])
def test_a_client_that_reads_slowly_is_not_cut_by_a_stop(module: ModuleType, name: str) -> None:
    """Its answer is complete for the application, but not for it."""
    module.app = large  # type: ignore[attr-defined]
    with draining(drain_timeout=100.0) as (server, stop), server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(REQUESTS[name])
        begun = read_slowly(client, 1_000_000)
        stop()
        assert begun + read_slowly(client, SIZE - begun) == SIZE
        assert client.recv(1) == b""


def test_a_client_that_sends_on_reads_its_last_answer_to_the_end(module: ModuleType) -> None:
    """It does not know yet that the answer is the last: a close with unread requests would reset it."""
    free = threading.Event()

    async def answer(scope: Any, _: Any, send: Any) -> None:
        assert scope["type"] == "http"
        while not free.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)
        await send(START)
        await send(BODY)

    module.app = answer  # type: ignore[attr-defined]
    request = REQUESTS["kept"]
    with draining(drain_timeout=100.0) as (server, stop), server.connect() as client:
        client.settimeout(PATIENCE)
        client.sendall(request)
        stop()
        until(lambda: is_draining(server))
        sender = threading.Thread(target=client.sendall, args=[request * 20_000])
        sender.start()
        sender.join(1)  # more than is read ahead: the rest waits in the kernel
        free.set()
        with client.makefile("rb") as answers:
            told = answers.read()
        sender.join(PATIENCE)
    assert told.count(b"connection: close") == told.count(b"HTTP/1.1 200") == 1
    assert told.endswith(b"0\r\n\r\n")
