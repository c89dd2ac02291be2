"""Several applications and folders in one server of the web, on paths and hosts."""

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tamed.builtin.web import MountAt, Options
from tamed.errors import ServiceFailed
from tamed.web.mounts import Mount
from tests.builtin.test_web import classic, echo, get, module, served
from tests.patience import PATIENCE

__all__ = ["module"]  # a fixture


class Named:
    """An application that answers with its name and what its lifespan keeps; the log has its life."""

    def __init__(self, name: str, log: list[str], fails: str = "") -> None:
        self._name = name
        self._log = log
        self._fails = fails

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                self._log.append(f"{self._name} {event}")
                if event == self._fails:
                    await send({"type": f"lifespan.{event}.failed", "message": "no rhyme"})
                    return
                scope["state"]["name"] = self._name
                await send({"type": f"lifespan.{event}.complete"})
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": self._name})
            return
        body = f"{scope['state']['name']} {scope['root_path']} {scope['path']}".encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def log(module: ModuleType) -> list[str]:
    """Make three applications that the server can be told to serve; their lives are logged here."""
    log: list[str] = []
    for name in ("one", "two", "three"):
        setattr(module, name, Named(name, log))
    return log


def mounts(*places: str) -> list[MountAt]:
    """Read the option."""
    return [MountAt.parse(place) for place in places]


def test_the_longest_path_and_the_host_choose_the_application(log: list[str]) -> None:
    """Each knows its place and keeps its own state; they start in order and stop in reverse."""
    places = mounts(
        "/=web_test_app:one", "/poems=web_test_app:two", "Poems.example.com/old=web_test_app:three"
    )
    with served(mount=places) as server:
        for path, host, answer in (
            ("/", "x", "one  /"),
            ("/poem", "x", "one  /poem"),
            ("/poems", "x", "two /poems /poems"),
            ("/poems/7", "x:80", "two /poems /poems/7"),
            ("/old/7", "x", "one  /old/7"),
            ("/old/7", "POEMS.example.com:8000", "three /old /old/7"),
        ):
            assert get(server, path, Host=host)[2] == answer
    assert log == [f"{name} startup" for name in ("one", "two", "three")] + [
        f"{name} shutdown" for name in ("three", "two", "one")
    ]


def test_files_and_applications_of_both_kinds_are_served_together(
    module: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Below the root path of a proxy, too. WebSockets reach those that have them; else the log says why."""
    caplog.set_level(logging.INFO)
    for name in ("site", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text(f"the {name}")
    module.classic, module.echo = classic, echo  # type: ignore[attr-defined]
    module.socket = Named("socket", [])  # type: ignore[attr-defined]
    places = mounts(
        "/old=web_test_app:classic",
        "/new=web_test_app:echo",
        "/chat=web_test_app:socket",
        f"/docs={tmp_path}/docs",
    )
    with served(tmp_path / "site", mount=places, root_path="/all") as server:
        assert get(server, "/")[2] == "the site"
        assert get(server, "/docs/")[2] == "the docs"
        assert get(server, "/docs")[0] == 308
        assert get(server, "/old/a")[2] == "http 127.0.0.1 /a 0"
        assert get(server, "/new/a")[2] == "http 127.0.0.1 /all/new/a 0"
        with connect(f"ws://{server.address()}/chat", open_timeout=PATIENCE, proxy=None) as client:
            assert client.recv(PATIENCE) == "socket"
        for path, why in (("/old", "the application speaks WSGI"), ("/docs", "files are served")):
            with pytest.raises(InvalidStatus, match="404"):
                connect(f"ws://{server.address()}{path}", open_timeout=PATIENCE, proxy=None)
            assert why in caplog.text


def test_a_place_without_an_application_is_not_found(log: list[str]) -> None:
    """And a WebSocket there is a 404, too."""
    with served(mount=mounts("/poems=web_test_app:one")) as server:
        assert get(server, "/")[::2] == (404, "Not Found\n")
        assert get(server, "/poems")[0] == 200
        with pytest.raises(InvalidStatus, match="404"):
            connect(f"ws://{server.address()}/", open_timeout=PATIENCE, proxy=None)


@pytest.mark.parametrize("event", ["startup", "shutdown"])
def test_an_application_that_fails_fails_the_server(module: ModuleType, log: list[str], event: str) -> None:
    """With its place in the message; those that were started before are stopped."""
    module.bad = Named("bad", log, fails=event)  # type: ignore[attr-defined]
    places = mounts("/=web_test_app:one", "/bad=web_test_app:bad")
    with pytest.raises(ServiceFailed, match=r"/bad: .*no rhyme"), served(mount=places):
        pass
    assert log[-1] == "one shutdown"


@pytest.mark.parametrize("text", ["", "/api", "api=a:b", "/api=", "/=\0"])
def test_a_mount_that_is_none_is_refused(text: str) -> None:
    """With the form that is expected; so is a server with nothing to serve."""
    with pytest.raises(ValueError, match="expected"):
        MountAt.parse(text)
    with pytest.raises(ValueError, match="use either a directory"):
        Options()
    with pytest.raises(ValueError, match="expected a path"):
        Mount(echo, "/api/")


def test_a_mount_is_written_as_it_is_read() -> None:
    """With folders relative to that of a deployment file."""
    for text in ("/api=poems:app", "a.example.com/=poems:app()", "/docs=site/docs"):
        assert str(MountAt.parse(text)) == text
    assert str(MountAt.parse("/docs=site").relative_to(Path("/srv"))) == "/docs=/srv/site"
    assert str(MountAt.parse("/api=a:b").relative_to(Path("/srv"))) == "/api=a:b"
