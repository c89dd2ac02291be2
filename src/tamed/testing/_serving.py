"""A service that runs beside a test that is not asynchronous itself."""

import asyncio
import socket
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from tamed.service.service import Service
from tamed.testing._running import Running, connected, running, target_of

__all__ = ["Served", "serving"]

S = TypeVar("S", bound=Service)
T = TypeVar("T")


class Served(Generic[S]):
    """A service that is ready, on an event loop in a thread of its own; `serving` gives one.

    ``service`` is the service itself. It lives in the other thread: to look at it or to call it, use `run`.
    """

    def __init__(self, running: Running[S], loop: asyncio.AbstractEventLoop, patience: float) -> None:
        self.service = running.service
        self.addresses = running.addresses
        self._running = running
        self._loop = loop
        self._patience = patience

    def address(self, server: str = "") -> str:
        """Return the first address of a server; see `Running.address`."""
        return self._running.address(server)

    def connect(self, server: str = "") -> socket.socket:
        """Return a socket that is connected to the address of a server; see `Running.address`."""
        target = target_of(self.address(server))
        if isinstance(target, tuple):
            return socket.create_connection(target, self._patience)
        client = connected(target)
        client.settimeout(self._patience)
        return client

    def fetch(self, server: str = "", send: bytes = b"") -> bytes:
        """Connect, send something, and return all that comes until the server closes the connection."""
        with self.connect(server) as client:
            client.sendall(send)
            with client.makefile("rb") as stream:
                return stream.read()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the service's event loop, and return its result or raise its exception."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(self._patience)


@contextmanager
def serving(service: S, *, drain_timeout: float = 5.0, patience: float = 120.0) -> Iterator[Served[S]]:
    """Run any service, or an application, beside the body of a ``with``; it is ready there.

    It is what `running` is, for tests without ``async``: the service has an event loop in a thread. What
    makes it fail is raised, at the end of the body if it was ready. ``patience`` is the longest that
    anything is waited for, in seconds; a test that passes does not come near it.
    """
    ready: Future[tuple[Served[S], asyncio.Event]] = Future()

    async def live() -> None:
        async with running(service, drain_timeout=drain_timeout) as started:
            over = asyncio.Event()
            ready.set_result((Served(started, asyncio.get_running_loop(), patience), over))
            await over.wait()

    def ended(life: Future[None]) -> None:
        error = life.exception()
        if error is not None and not ready.done():
            ready.set_exception(error)

    with ThreadPoolExecutor(1, thread_name_prefix="tamed-service") as threads:
        life = threads.submit(lambda: asyncio.run(live()))
        life.add_done_callback(ended)
        served, over = ready.result(patience)
        try:
            yield served
        finally:
            if not life.done():
                served._loop.call_soon_threadsafe(over.set)
            life.result(patience + drain_timeout)
