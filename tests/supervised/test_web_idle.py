"""Clients of the web that wait on a kept connection while workers are replaced, or the daemon stops."""

import http.client
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trustme

from tests.builtin.http2_client import Http2Client
from tests.net.certificates import make_files
from tests.patience import PATIENCE
from tests.supervised.daemon import Daemon, Tamed, is_there, wait_for

APPLICATION = """
import os

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan here")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""

_PATIENT = ("--keep-alive", "1h", "--head-timeout", "2s")
"""The options of a server that waits for a second request, and not for a first one."""


def start(
    tamed: Tamed, *options: str, listen: str = "127.0.0.1:0", workers: int = 1, drain: str = "2h"
) -> Daemon:
    """Start a daemon whose answers are the pids of its workers."""
    tamed.write("idle_app.py", APPLICATION)
    daemon = ("--workers", str(workers), "--drain-timeout", drain)
    app = ("--app", "idle_app:application", "--app-dir", tamed.folder)
    return tamed.start(*daemon, "web", *app, "--no-access-log", "--listen", listen, *options)


def ask(client: http.client.HTTPConnection) -> tuple[int, bool]:
    """Send a request; return the pid of the worker, and whether the answer is the last one."""
    client.request("GET", "/")
    response = client.getresponse()
    return int(response.read()), response.will_close


def plain(daemon: Daemon) -> http.client.HTTPConnection:
    """Return a client without TLS."""
    return http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=PATIENCE)


def pass_time(client: http.client.HTTPConnection) -> None:
    """Wait until the server closes a new connection without a request."""
    with closing(client):
        client.connect()
        assert client.sock.recv(1) == b""


def expect_gone(pid: int) -> None:
    """Wait until a worker has ended."""
    wait_for("the end of the old worker", lambda: not is_there(pid))


@pytest.mark.parametrize(("operation", "is_tls"), [("reload", False), ("upgrade", True)])
def test_a_request_after_a_pause_is_answered_by_the_old_worker(
    tamed: Tamed, tmp_path: Path, operation: str, is_tls: bool
) -> None:
    """However long after the reload or the upgrade it comes, and the answer announces the close."""
    connect: Callable[[Daemon], http.client.HTTPConnection] = plain
    listen = "127.0.0.1:0"
    if is_tls:
        files = make_files(tmp_path / "tls", trustme.CA())
        context = ssl.create_default_context(cafile=files.ca)
        listen = f"tls://localhost:0?cert={files.both}"

        def connect(daemon: Daemon) -> http.client.HTTPConnection:
            return http.client.HTTPSConnection("localhost", daemon.port, timeout=PATIENCE, context=context)

    daemon = start(tamed, *_PATIENT, listen=listen)
    with closing(connect(daemon)) as client:
        old, is_last = ask(client)
        assert not is_last
        assert tamed(operation, daemon.name).status == 0
        pass_time(connect(daemon))
        assert ask(client) == (old, True)
    expect_gone(old)
    daemon.stop()


def test_a_request_after_a_pause_is_answered_by_a_worker_too_many(tamed: Tamed) -> None:
    """The connections of the worker that stays are kept."""
    daemon = start(tamed, *_PATIENT, workers=2)
    first, second = (one["pid"] for one in sorted(daemon.status()["workers"], key=lambda one: one["number"]))
    with ExitStack() as stack:
        clients: dict[int, http.client.HTTPConnection] = {}
        while len(clients) < 2:
            client = stack.enter_context(closing(plain(daemon)))
            if clients.setdefault(ask(client)[0], client) is not client:
                client.close()  # or its worker would wait for it
        assert tamed("scale", "1", daemon.name).status == 0
        pass_time(plain(daemon))
        assert ask(clients[second]) == (second, True)
        assert ask(clients[first]) == (first, False)
        expect_gone(second)
        daemon.stop()


def test_a_request_after_a_pause_is_answered_over_http2(tamed: Tamed) -> None:
    """The client has read nothing when it sends; the last stream is named when it has."""
    daemon = start(tamed, *_PATIENT, "--http2")
    with (
        socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as sock,
        Http2Client(sock) as client,
    ):
        old = int(client.get().body)
        assert tamed("reload", daemon.name).status == 0
        pass_time(plain(daemon))
        assert client.goaways == []
        number = client.request()
        assert int(client.answer(number).body) == old
        client.to_the_end()
        assert [last for last, _ in client.goaways] == [2**31 - 1, number]
    expect_gone(old)
    daemon.stop()


@pytest.mark.parametrize(("keep_alive", "drain", "least"), [("2s", "1h", 2.0), ("1h", "4s", 2.0)])
def test_a_silent_client_keeps_an_old_worker_for_a_bounded_time(
    tamed: Tamed, keep_alive: str, drain: str, least: float
) -> None:
    """For its keep-alive time, and for half of the drain time at most; no connection is aborted."""
    daemon = start(tamed, "--keep-alive", keep_alive, drain=drain)
    with closing(plain(daemon)) as client:
        begun = time.monotonic()
        old, _ = ask(client)
        assert tamed("reload", daemon.name).status == 0
        assert client.sock.recv(1) == b""
        assert time.monotonic() - begun >= least
    expect_gone(old)
    assert "aborts connections" not in daemon.log
    daemon.stop()


@pytest.mark.parametrize("end", ["stop", "loss of the supervisor"])
@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "serving"])
def test_a_silent_client_does_not_hold_a_daemon_that_stops(tamed: Tamed, end: str, is_replaced: bool) -> None:
    """Its connection is closed at once, also that of a worker that was already replaced."""
    daemon = start(tamed, *_PATIENT)
    with closing(plain(daemon)) as client:
        old, _ = ask(client)
        if is_replaced:
            assert tamed("reload", daemon.name).status == 0
        if end == "stop":
            daemon.stop()
        else:
            os.kill(daemon.pid, signal.SIGKILL)
        assert client.sock.recv(1) == b""
    expect_gone(old)
    wait_for("the end of all", lambda: not tamed.processes())
