"""A plugin for uvicorn's own tests: they drive Tamed's connections where they would drive uvicorn's.

They make a protocol with a transport and an event loop in memory, or run a server on a port; both are
replaced here. The loop that they expect runs one task when it is told to; here it is a real one, which runs
until nothing is left to do, and whose clock the tests move.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any

import pytest

from bench.conformance.connection import MemoryConnection, MemoryTransport, context_of
from tamed.net.endpoint import TcpEndpoint
from tamed.web.limits import Http2Limits, WebSocketLimits
from tamed.web.server import WebServer

_TURNS = 200
"""Iterations of the loop in which a connection in memory has nothing left to do."""

_LAST_READ = 0.1
"""Seconds in which clients in the same loop read what a stopped server has sent, as after uvicorn's stop."""

_OTHERS = "h11]", "[h11", "h11protocol", "h11_max", "zttp]", "[zttp", "[wsproto", "test_fragmentation"
"""In names of cases: of another parser than the one that is replaced, or with a server of uvicorn's own."""


class MovedClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test moves, which calls at once what is due then."""

    def __init__(self) -> None:
        super().__init__()
        self._moved = 0.0
        self._timers: list[tuple[asyncio.TimerHandle, Callable[[], object]]] = []

    def time(self) -> float:
        """Return the time of this loop's clock, in seconds."""
        return super().time() + self._moved

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Call at a time, as every event loop does."""
        handle = super().call_at(when, callback, *args, context=context)
        self._timers.append((handle, lambda: callback(*args)))
        return handle

    def move(self, seconds: float) -> None:
        """Move the clock."""
        self._moved += seconds
        timers, self._timers = self._timers, []
        for handle, call in timers:
            if handle.cancelled():
                continue
            if handle.when() <= self.time():
                handle.cancel()
                call()
            else:
                self._timers.append((handle, call))


class MovedClockPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes such loops."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop."""
        return MovedClockLoop()


class TamedProtocol(asyncio.Protocol):
    """Stands where uvicorn's protocols do, with the names of theirs that the tests use."""

    speaks_http2 = False

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any) -> None:
        if not config.loaded:
            config.load()
        websocket = None if config.ws_protocol_class is None else WebSocketLimits()
        self.loop = _loop
        _loop.run_one, _loop.run_later = self._run, self._move
        self._context = context_of(
            config.loaded_app,
            state=app_state,
            root_path=config.root_path,
            keep_alive=config.timeout_keep_alive,
            websocket=websocket,
        )

    def connection_made(self, transport: Any) -> None:
        """Connect."""
        self.transport = transport
        self._inner = MemoryTransport(transport.write, self._close, self._detail)
        self._connection = MemoryConnection(self._context, self._inner, http2=self.speaks_http2)
        self._show()

    def data_received(self, data: bytes) -> None:
        """Give the server what its client has sent."""
        self._connection.data_received(data)
        self._show()

    def eof_received(self) -> None:
        """Do nothing: the connection is lost next."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the client leave."""
        self._connection.connection_lost()

    def shutdown(self) -> None:
        """Stop the server, and wait until a client that has sent nothing yet had its moment."""
        self._connection.drain()
        self._move(0 if self._context.tasks else 2.5)

    def _detail(self, name: str) -> Any:
        return None if name == "ssl_object" else self.transport.get_extra_info(name)

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _show(self) -> None:
        self.transport.read_paused = self._inner.is_paused

    async def _run(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self._show()

    def _move(self, with_delay: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MovedClockLoop)
        loop.move(with_delay)


class TamedHttp2Protocol(TamedProtocol):
    """The same, where uvicorn's protocol of HTTP/2 stands: TLS has agreed on it."""

    speaks_http2 = True


class _Server:
    """What the tests use of uvicorn's server."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def shutdown(self) -> None:
        """Stop it; a second time there is nothing to stop."""
        await self._stack.aclose()


@asynccontextmanager
async def run_server(config: Any, sockets: Any = None) -> AsyncIterator[_Server]:
    """Serve on a port, as a function of this name in uvicorn's tests does."""
    if not config.loaded:
        config.load()
    assert sockets is None
    limits = WebSocketLimits(
        message=config.ws_max_size,
        frame=config.ws_max_size,
        ping_interval=config.ws_ping_interval or 1e6,
        pong_timeout=config.ws_ping_timeout or 1e6,
        compression=config.ws_per_message_deflate,
    )
    server = WebServer(
        config.loaded_app,
        TcpEndpoint(config.host, config.port),
        lifespan=config.lifespan != "off",
        http2=Http2Limits() if config.http2 else None,
        root_path=config.root_path,
        websocket=limits,
        drain_timeout=5,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        yield _Server(stack)
    await asyncio.sleep(_LAST_READ)


def _replace() -> None:
    import_module("tests.utils").run_server = run_server  # type: ignore[attr-defined]
    for module, name, protocol in [
        ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol", TamedProtocol),
        ("uvicorn.protocols.http.zttp_h2_impl", "ZttpH2Protocol", TamedHttp2Protocol),
    ]:
        setattr(import_module(module), name, protocol)
    asyncio.set_event_loop_policy(MovedClockPolicy())


_replace()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run each case for one of uvicorn's parsers, and none that starts uvicorn's server."""
    others = [item for item in items if any(name in item.name for name in _OTHERS)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
