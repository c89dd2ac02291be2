"""The web under load over reloads and upgrades: HTTP/1.1, HTTP/2 and WebSocket with real processes."""

import http.client
import random
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Self

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.builtin.http2_client import Http2Client
from tests.patience import PATIENCE, ROUNDS
from tests.supervised.daemon import Tamed

APPLICATION = """
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"done\\n"})
"""

_PAUSE = 0.005 if ROUNDS == 1 else 0.0
"""Seconds between two requests of a client: each asks many times while a worker comes or goes."""

_LONG_PAUSE = 3.0
"""Seconds between two requests of a slow client, at most: it is idle while several workers come and go."""


class Clients:
    """Some of each kind, until they are told to end; they count what was answered, and what was not."""

    def __init__(self, port: int) -> None:
        self.answered = {"kept": 0, "slow": 0, "new": 0, "HTTP/2": 0, "WebSocket": 0}
        self.told = 0  # WebSockets that were, that the service restarts
        self.faults: list[str] = []
        self._port = port
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        ask: dict[str, Callable[[], int]] = {
            "kept": partial(self._kept, _PAUSE),
            "slow": partial(self._kept, _LONG_PAUSE),
            "new": self._new,
            "HTTP/2": self._http2,
            "WebSocket": self._websocket,
        }
        self._threads = [
            threading.Thread(target=partial(self._ask, kind, once))
            for kind, once in ask.items()
            for _ in range(10 if kind == "slow" else 2)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _ask(self, kind: str, once: Callable[[], int]) -> None:
        while not self._is_over.wait(_PAUSE):
            try:
                count = once()
            except (OSError, http.client.HTTPException, AssertionError, ConnectionClosed) as error:
                self.faults.append(f"{kind}: {error!r}")
                return
            with self._lock:
                self.answered[kind] += count

    def _kept(self, pause: float) -> int:
        """Ask on a connection, with pauses up to this long, until an answer says that it is the last."""
        count, will_close = 0, False
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            while not will_close and not self._is_over.wait(random.uniform(0, pause)):
                client.request("GET", "/")
                response = client.getresponse()
                assert response.read() == b"done\n"
                will_close = response.will_close
                count += 1
        finally:
            client.close()
        return count

    def _new(self) -> int:
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            client.request("GET", "/", headers={"Connection": "close"})
            assert client.getresponse().read() == b"done\n"
        finally:
            client.close()
        return 1

    def _http2(self) -> int:
        """Ask for ten things at a time until the server goes away; what it has taken on must be answered."""
        count = 0
        with (
            socket.create_connection(("127.0.0.1", self._port), PATIENCE) as sock,
            Http2Client(sock) as client,
        ):
            while not client.goaways and not self._is_over.wait(_PAUSE):
                numbers = [client.request() for _ in range(10)]
                answers = [client.answer(number) for number in numbers]
                if client.has_ended or client.goaways:
                    client.to_the_end()
                last = client.goaways[-1][0] if client.goaways else 2**31 - 1
                for number, answer in zip(numbers, answers, strict=True):
                    if number <= last:
                        assert answer.body == b"done\n", f"stream {number} of {last}"
                        count += 1
        return count

    def _websocket(self) -> int:
        """Send messages until the server says that it restarts."""
        count = 0
        try:
            with connect(f"ws://127.0.0.1:{self._port}/", open_timeout=PATIENCE, proxy=None) as client:
                while not self._is_over.wait(_PAUSE):
                    client.send("verse")
                    assert client.recv(PATIENCE) == "verse"
                    count += 1
        except ConnectionClosed as closed:
            if closed.rcvd is None or closed.rcvd.code != 1012:
                raise
            self.told += 1
        return count


@pytest.mark.unmeasured
def test_no_client_of_the_web_notices_reloads_and_upgrades(tamed: Tamed) -> None:
    """Every request on each kind of connection is answered; each WebSocket gets a close message."""
    (tamed.folder / "load_app.py").write_text(APPLICATION)
    daemon = tamed.start(
        "--workers",
        "2",
        "--log-level",
        "warning",
        "web",
        "--app",
        "load_app:application",
        "--app-dir",
        tamed.folder,
        "--http2",
        "--no-access-log",
        "--keep-alive",
        "1m",
        "--listen",
        "127.0.0.1:0",
    )
    with Clients(daemon.port) as clients:
        for number in range(ROUNDS):
            assert tamed("reload", daemon.name).status == 0
            if number % 5 == 0:
                assert tamed("upgrade", daemon.name).status == 0
    assert clients.faults == []
    assert min(clients.answered.values()) > 0, clients.answered
    assert clients.told > 0
    assert "aborts connections that did not end" not in daemon.log
    daemon.stop()
