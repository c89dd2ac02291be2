"""What the web relies on in uvicorn beyond its documentation, name by name."""

import asyncio
import importlib
from typing import Any

import pytest
import uvicorn

pytestmark = pytest.mark.anyio

_PROTOCOL = "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol"
_CYCLE = "uvicorn.protocols.http.httptools_impl:RequestResponseCycle"

RELIED_ON = {
    _PROTOCOL: (  # called by the event loop, the parser and the requests, and overridden
        "connection_lost",
        "connection_made",
        "data_received",
        "on_body",
        "on_header",
        "on_headers_complete",
        "on_message_begin",
        "on_message_complete",
        "on_response_complete",
        "on_url",
        "pause_writing",
        "resume_writing",
        "shutdown",
        "timeout_keep_alive_handler",
    ),
    _CYCLE: ("receive", "run_asgi", "send"),
    "uvicorn.protocols.http.flow_control:FlowControl": (
        "pause_reading",
        "pause_writing",
        "resume_reading",
        "resume_writing",
    ),
    "uvicorn.server:ServerState": (),
}


class Wire(asyncio.Transport):
    """Takes all that is written, and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self._closed = False

    def write(self, data: Any) -> None:
        pass

    def close(self) -> None:
        self._closed = True

    def is_closing(self) -> bool:
        return self._closed


def require(what: object, name: str) -> Any:
    """Return an attribute; say what relies on it if there is none."""
    assert hasattr(what, name), (
        f"uvicorn {uvicorn.__version__} has no {type(what).__name__}.{name}, which the web relies on: "
        "adapt builtin/_web/compat.py, or lower the upper bound of the extra `web`"
    )
    return getattr(what, name)


@pytest.mark.parametrize("name", RELIED_ON)
def test_class_has_its_methods(name: str) -> None:
    """The class is where it is imported from, and has each method that is called or overridden."""
    module, _, class_name = name.partition(":")
    found = require(importlib.import_module(module), class_name)
    missing = [each for each in RELIED_ON[name] if not callable(getattr(found, each, None))]
    assert not missing, f"uvicorn {uvicorn.__version__} has no {class_name}.{missing[0]}"


async def test_connection_has_its_attributes() -> None:
    """Each attribute that is read or written is there, and the application is taken from ``app``."""
    called: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope)

    config = uvicorn.Config(application, interface="asgi3", lifespan="off", log_config=None)
    config.load()
    require(config, "loaded_app")
    protocols = importlib.import_module("uvicorn.protocols.http.httptools_impl")
    state = importlib.import_module("uvicorn.server").ServerState()
    protocol = protocols.HttpToolsProtocol(config, state, {})
    protocol.connection_made(Wire())
    for name in ("access_log", "access_logger", "client", "cycle", "flow", "logger", "loop", "parser"):
        require(protocol, name)
    for name in ("pipeline", "server_state", "timeout_keep_alive_task", "transport"):
        require(protocol, name)
    for name in ("read_paused", "write_paused"):
        assert require(protocol.flow, name) is False
    assert require(state, "tasks") == set()
    assert require(state, "default_headers") == []
    replaced = list[Any]()

    async def replacement(*arguments: Any) -> None:
        replaced.append(arguments)

    assert require(protocol, "app")
    protocol.app = replacement
    protocol.data_received(b"GET /path HTTP/1.1\r\nhost: here\r\n\r\n")
    assert require(protocol, "url") == b"/path"
    assert require(protocol, "headers") == [(b"host", b"here")]
    cycle = protocol.cycle
    for name in ("disconnected", "response_complete", "waiting_for_100_continue"):
        assert require(cycle, name) is False
    assert require(cycle, "keep_alive") is True
    assert require(cycle, "transport") is protocol.transport
    assert not require(cycle, "message_event").is_set() or cycle.more_body is False
    await asyncio.wait(set(state.tasks))
    ((scope, receive, send),) = replaced
    assert scope["path"] == "/path"
    assert (receive, send) == (cycle.receive, cycle.send)
    assert not called
    protocol.connection_lost(None)
    assert cycle.disconnected or cycle.response_complete
