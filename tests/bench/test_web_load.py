"""The clients of the web count what was answered as it should be, and nothing else."""

import shutil
from typing import Any

import pytest

from bench.load.http import connections, echo, kept, requests
from bench.measures import all_comparisons
from bench.programs.web_hello import asgi
from tamed.testing.running import Served, serving
from tamed.web.limits import Http2Limits
from tamed.web.server import WebServer

needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="there is no h2load")
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="there is no wrk")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no compiler")


def server(application: Any) -> WebServer:
    """Return a server of both versions of HTTP."""
    return WebServer(application, "tcp://127.0.0.1:0", lifespan=False, http2=Http2Limits())


def port_of(served: Served[WebServer]) -> int:
    """Return the port that it listens on."""
    return int(served.address().rpartition(":")[2])


async def failing(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a failure, and echo another text."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": "TWELVE BYTES"})


@needs_h2load
@pytest.mark.parametrize("streams", [0, 5], ids=["HTTP/1.1", "HTTP/2"])
def test_requests_that_were_answered_are_counted(streams: int) -> None:
    """Those with a status of success, and with all of the body."""
    with serving(server(asgi)) as served:
        assert requests(port_of(served), 100, path="/", size=12, clients=4, streams=streams) == (100, 0)
        assert requests(port_of(served), 100, path="/", size=24, clients=4, streams=streams) == (50, 50)
    with serving(server(failing)) as served:
        assert requests(port_of(served), 100, path="/", size=12, clients=4, streams=streams) == (0, 100)


@needs_wrk
def test_requests_of_some_seconds_are_counted() -> None:
    """However many there were; those with a status of failure apart."""
    with serving(server(asgi)) as served:
        right, failed = kept(port_of(served), 1, clients=4)
    assert right > 0
    assert failed == 0
    with serving(server(failing)) as served:
        right, failed = kept(port_of(served), 1, clients=4)
    assert right == 0
    assert failed > 0


@needs_compiler
def test_requests_on_connections_of_their_own_are_counted() -> None:
    """Those that were answered with the text."""
    with serving(server(asgi)) as served:
        assert connections(port_of(served), 100, clients=4) == (100, 0)
    with serving(server(failing)) as served:
        assert connections(port_of(served), 100, clients=4) == (0, 100)


def test_messages_that_came_back_are_counted() -> None:
    """With the same text; as many as all clients together send in whole turns."""
    with serving(server(asgi)) as served:
        assert echo(port_of(served), 90, clients=4) == (92, 0)
    with serving(server(failing)) as served:
        assert echo(port_of(served), 90, clients=4) == (0, 92)


def test_a_server_without_websockets_is_an_error() -> None:
    """And no row of zeros."""
    with (
        serving(WebServer(asgi, "tcp://127.0.0.1:0", lifespan=False, websocket="none here")) as served,
        pytest.raises(RuntimeError, match=r"no WebSocket: HTTP/1\.1 404"),
    ):
        echo(port_of(served), 1, clients=1)


def test_each_goal_of_the_web_names_servers_that_are_measured() -> None:
    """Otherwise it would be left out without a word."""
    for comparison in all_comparisons():
        names = {contestant.name for contestant in comparison.contestants}
        if comparison.key.startswith("web-"):
            assert comparison.goals
        assert all({goal.ours, goal.theirs or goal.ours} <= names for goal in comparison.goals)
