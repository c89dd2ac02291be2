"""Services that run in a test, and the addresses of their servers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

from tamed.net.endpoint import Endpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint
from tamed.net.listen import (
    Listener,
    ListeningService,
    LocalSource,
    ServerEnvironment,
    SocketSource,
    use_environment,
)
from tamed.service.service import Service

__all__ = ["FreePorts", "Running", "Served", "StartService", "connected", "running", "serving", "target_of"]

S = TypeVar("S", bound=Service)
T = TypeVar("T")


class FreePorts(SocketSource):
    """A socket source that binds a free port for every endpoint with a port; its other parts are unchanged.

    So a service can be tested with its real configuration, on a machine where it or other tests run.
    """

    def __init__(self, source: SocketSource | None = None) -> None:
        self._source = source or LocalSource()

    async def listen(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Bind, on a port of the kernel's choice; see `tamed.net.listen.SocketSource`."""
        return await self._source.listen(_with_free_port(endpoint), kind)

    def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        """Do the same without waiting."""
        return self._source.listen_now(_with_free_port(endpoint), kind)


def _with_free_port(endpoint: Endpoint) -> Endpoint:
    return endpoint.replace(port=0) if isinstance(endpoint, TcpEndpoint | TlsEndpoint) else endpoint


class Running(Generic[S]):
    """A service that is ready; made by `running`.

    ``service`` is the service itself.
    """

    def __init__(self, service: S) -> None:
        self.service = service

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of all its servers, in starting order, as on the command line."""
        return tuple(address for server in self._servers() for address in server.addresses)

    def address(self, server: str = "") -> str:
        """Return the first address of the server with this ``full_name``; without a name the first of all.

        Raises LookupError if there is none.
        """
        for found in self._servers():
            if found.addresses and server in ("", found.full_name):
                return found.addresses[0]
        names = ", ".join(found.full_name for found in self._servers())
        raise LookupError(f"no server {server!r} listens; there is: {names or 'none'}")

    async def connect(self, server: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the address of a server, without TLS. Raises as `address` does, and OSError."""
        target = target_of(self.address(server))
        if isinstance(target, str):
            return await asyncio.open_unix_connection(sock=connected(target))
        return await asyncio.open_connection(*target)

    async def fetch(self, server: str = "", send: bytes = b"") -> bytes:
        """Connect, send data, and return everything received until the server closes the connection."""
        reader, writer = await self.connect(server)
        try:
            writer.write(send)
            return await reader.read()
        finally:
            writer.close()

    def _servers(self) -> list[ListeningService]:
        return [service for service in self.service.walk() if isinstance(service, ListeningService)]


@asynccontextmanager
async def running(service: S, *, drain_timeout: float = 5.0) -> AsyncIterator[Running[S]]:
    """Run any service, or an application, in the body of an ``async with``; it is ready there.

    ::

        async with running(fastpoetry(Options())) as poetry:
            assert await poetry.fetch() == POEM

    Its servers really listen, each on a free port instead of the configured one. ``drain_timeout`` is the
    drain timeout, in seconds, of servers without one of their own. If the service fails, its exception is
    raised, as by ``async with service`` itself.
    """
    with use_environment(ServerEnvironment(FreePorts(), drain_timeout)):
        async with service:
            yield Running(service)


def connected(path: str) -> socket.socket:
    """Return a socket connected to a unix socket, which may be abstract: uvloop cannot connect to those."""
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except OSError:
        client.close()
        raise
    return client


def target_of(address: str) -> str | tuple[str, int]:
    """Return the argument for a client socket's connect: the path of a unix socket, or a host and a port."""
    match Endpoint.parse(address):
        case UnixEndpoint(path=path):
            return f"\0{path[1:]}" if path.startswith("@") else path
        case TcpEndpoint(host=host, port=port):
            return host, port
        case other:
            raise LookupError(f"{other} is not an address to connect to")


class Served(Generic[S]):
    """A service that is ready, on an event loop in a thread of its own; made by `serving`.

    ``service`` is the service itself. It belongs to the other thread: read and call it with `run` only.
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
        """Return a socket connected to the address of a server; see `Running.address`."""
        target = target_of(self.address(server))
        if isinstance(target, tuple):
            return socket.create_connection(target, self._patience)
        client = connected(target)
        client.settimeout(self._patience)
        return client

    def fetch(self, server: str = "", send: bytes = b"") -> bytes:
        """Connect, send data, and return everything received until the server closes the connection."""
        with self.connect(server) as client:
            with suppress(BrokenPipeError):  # it has answered without reading, and the answer is there
                client.sendall(send)
            with client.makefile("rb") as stream:
                return stream.read()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the service's event loop, and return its result or raise its exception."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(self._patience)


@contextmanager
def serving(service: S, *, drain_timeout: float = 5.0, patience: float = 120.0) -> Iterator[Served[S]]:
    """Run any service, or an application, beside the body of a ``with``; it is ready there.

    Like `running`, for tests without ``async``: the service has an event loop in a thread. If the service
    fails, its exception is raised, at the end of the body if it was ready. ``patience`` is the longest time
    for any wait, in seconds; choose it far longer than a passing test needs.
    """
    ready: Future[tuple[Served[S], Callable[[], object]]] = Future()

    async def live() -> None:
        async with running(service, drain_timeout=drain_timeout) as started:
            over = asyncio.Event()
            loop = asyncio.get_running_loop()
            ready.set_result((Served(started, loop, patience), lambda: loop.call_soon_threadsafe(over.set)))
            await over.wait()

    def ended(life: Future[None]) -> None:
        error = life.exception()
        if error is not None and not ready.done():
            ready.set_exception(error)

    with ThreadPoolExecutor(1, thread_name_prefix="tamed-service") as threads:
        life = threads.submit(lambda: asyncio.run(live()))
        life.add_done_callback(ended)
        served, stop = ready.result(patience)
        try:
            yield served
        finally:
            if not life.done():
                stop()
            life.result(patience + drain_timeout)


class StartService(Protocol):
    """The type of the fixture ``tamed_service``: starts a service, which is stopped after the test."""

    def __call__(self, service: S, *, drain_timeout: float = 5.0) -> Served[S]:
        """Start a service on free ports, and return it when it is ready; see `serving`."""
