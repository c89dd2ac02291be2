"""A poetry proxy: serves the poem of another poetry server, even while that one is slow or down."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from tamed.builtin._relay import Stream, connect_unix
from tamed.errors import ConfigurationError, TamedError, Unavailable, reason
from tamed.log.logger import own_logger
from tamed.net.endpoint import Endpoint, TcpEndpoint, UnixEndpoint, address_text
from tamed.net.stream import StreamServer
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration, Size
from tamed.service.service import MultiService, Service

__all__ = ["Options", "PoemCache", "SharedCall", "poetryproxy"]

log = own_logger("poetryproxy")

T = TypeVar("T")

_CHUNK: Final = 1 << 16
_RECENT: Final = 1.0  # seconds before a worker asks the sharing worker again
_BRIDGE: Final = 5.0  # seconds to serve its last poem until another worker shares the poem


class PoemCache(Service):
    """Keeps the poem that ``fetch`` returned last, and fetches it again when a client needs a fresher one.

    ``refresh``, ``keep`` and ``retry`` are seconds on the event loop's clock:

    - a poem that was fetched less than ``refresh`` ago is returned at once;
    - an older one is fetched again, once for all callers, which wait for the new one. If ``fetch`` raises a
      `TamedError`, they get the old one, if that was fetched less than ``keep`` ago (None: of any age);
    - after a failure no caller waits for another attempt until ``retry`` has passed.

    A fetch without a waiting caller is cancelled, which is no failure. ``source`` is for the summary.
    """

    def __init__(
        self,
        fetch: Callable[[], Coroutine[Any, Any, bytes]],
        *,
        refresh: float,
        keep: float | None,
        retry: float,
        source: str = "",
    ) -> None:
        super().__init__("poem")
        self._fetch = fetch
        self._refresh = refresh
        self._keep = keep
        self._retry = retry
        self._source = source
        self._poem: bytes | None = None
        self._fetched = 0.0
        self._failure: TamedError | None = None
        self._failed = 0.0
        self._fetching = SharedCall(self._fetch_once)

    @property
    def summary(self) -> str:
        """The source, the poem's length, and the reason if the last fetch failed."""
        length = "" if self._poem is None else f"{len(self._poem)} bytes"
        failure = "" if self._failure is None else self._failure.why
        return ", ".join(filter(None, (self._source, length, failure)))

    @property
    def fresh(self) -> bytes | None:
        """The poem, if it is available without waiting."""
        return self._poem if self._poem is not None and self._age() < self._refresh else None

    async def poem(self) -> bytes:
        """Return the poem, after a fetch if necessary. Raises Unavailable if there is none."""
        if self.fresh is None and self._may_fetch():
            await self._fetching.result()
        if self._poem is not None and (self._keep is None or self._age() < self._keep):
            return self._poem
        assert self._failure is not None
        raise Unavailable("there is no poem", str(self._failure))

    async def start(self) -> None:
        """Begin without a poem: the upstream may be down, and is contacted when the first client comes."""
        self._poem = self._failure = None

    async def stop(self) -> None:
        """Cancel the running fetch."""
        await self._fetching.close()

    async def _fetch_once(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            poem = await self._fetch()
        except TamedError as error:
            self._failure, self._failed = error, clock()
            log.warning(
                "%s; %s",
                error,
                "there is no poem to serve" if self._poem is None else "keeping the last poem",
            )
        else:
            self._poem, self._fetched, self._failure = poem, clock(), None
            log.info("fetched a poem of %d bytes", len(poem))

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._fetched

    def _may_fetch(self) -> bool:
        return self._failure is None or asyncio.get_running_loop().time() - self._failed >= self._retry


class SharedCall(Generic[T]):
    """Shares one call of a coroutine function among concurrent callers, and cancels it when none waits.

    A caller that comes during a call waits for the same result, or the same exception. A cancelled caller
    does not affect the others; with the last one the call is cancelled, and the next caller begins a new one.
    """

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._call = call
        self._task: asyncio.Task[T] | None = None  # the one that can be joined
        self._waiting = 0  # for that one
        self._tasks: set[asyncio.Task[T]] = set()  # that one, and cancelled ones that have not ended yet

    async def result(self) -> T:
        """Wait for the result of the running call, or of a new one."""
        task = self._task or self._begin()
        self._waiting += 1
        try:
            await asyncio.wait([task])
        finally:
            self._leave(task)
        return task.result()

    async def close(self) -> None:
        """Cancel the running call, and wait for its end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self) -> asyncio.Task[T]:
        self._task = task = asyncio.create_task(self._call())
        self._waiting = 0
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if self._task is task:
            self._task = None

    def _leave(self, task: asyncio.Task[T]) -> None:
        if self._task is task:
            self._waiting -= 1
            if not self._waiting:
                self._task = None
                task.cancel()


@dataclass
class Options:
    """The options of ``poetryproxy``."""

    upstream: Endpoint = option(help="The poetry server whose poem is served: HOST:PORT or unix:PATH.")
    port: int = option(10001, "The port number to listen on.", short="p")
    iface: str = option("localhost", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    refresh: Duration = option(Duration("1m"), "Age at which the poem is fetched again.")
    keep: Duration | None = option(
        None, "Maximum age of the last good poem while the upstream is down; unlimited by default."
    )
    retry: Duration = option(Duration("1s"), "Delay after a failed fetch before the next one.")
    fetch_timeout: Duration = option(Duration("10s"), "Longest time of a fetch.")
    max_size: Size = option(Size("1 MB"), "Maximum size of a poem.")
    half_closed: Duration = option(
        Duration("2s"), "Longest time to wait for a client that has closed its sending side."
    )
    send_timeout: Duration = option(Duration("1m"), "Longest time for a client to read the poem.")
    max_connections: int = option(10000, "Maximum number of open connections; further clients wait.", ge=1)
    max_connections_per_address: int = option(
        2000, "The same for one address; its further clients are refused.", ge=1
    )

    shared: Endpoint | None = option(
        None, "A unix socket on which one worker shares the poem with all; only that one fetches it."
    )

    def __post_init__(self) -> None:
        TcpEndpoint(self.iface, self.port)  # raises ValueError for invalid options
        is_unix = isinstance(self.shared, UnixEndpoint | None)
        if not is_unix:
            raise ValueError(f"shared {self.shared}: expected unix:PATH")
        if self.keep is not None and self.keep < self.refresh:
            raise ValueError(f"keep {self.keep} is less than refresh {self.refresh}")


@plugin
def poetryproxy(options: Options) -> Service:
    """A poetry proxy that caches, and shares one fetch among all waiting clients."""
    cache = _cache_of(options, options.upstream, refresh=options.refresh, keep=options.keep)
    listen = options.listen or [TcpEndpoint(options.iface, options.port)]
    if options.shared is None:
        return MultiService("poetryproxy", cache, _server_of(options, cache, listen))
    keep = None if options.keep is None else _BRIDGE
    own = _cache_of(options, options.shared, refresh=_RECENT, keep=keep)
    shared = MultiService("shared", cache, _server_of(options, cache, [options.shared]))
    shared.only = "host"
    return MultiService("poetryproxy", shared, own, _server_of(options, own, listen))


def _cache_of(options: Options, source: Endpoint, *, refresh: float, keep: float | None) -> PoemCache:
    upstream = PoemUpstream(source, limit=options.max_size, timeout=options.fetch_timeout)
    return PoemCache(upstream.fetch, refresh=refresh, keep=keep, retry=options.retry, source=str(source))


def _server_of(options: Options, cache: PoemCache, listen: list[Endpoint]) -> StreamServer:
    return StreamServer(
        listen,
        Reciter(options, cache).recite,
        name="server",
        max_connections=options.max_connections,
        max_connections_per_address=options.max_connections_per_address,
    )


class Reciter:
    """Serves connections: waits for the poem of a cache while the client does, and sends it.

    A client that resets the connection has left. One that has closed its sending side may have left, or may
    still read (TCP does not show which), so the wait continues for ``half_closed`` seconds. A client that
    does not read its poem within ``send_timeout`` seconds is disconnected.
    """

    def __init__(self, options: Options, cache: PoemCache) -> None:
        self._options = options
        self._cache = cache

    async def recite(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        peer = address_text(writer.get_extra_info("peername"))
        try:
            poem = self._cache.fresh or await self._while_connected(reader)
        except Unavailable as error:
            log.info("nothing for %s: %s", peer, error)
            return
        if poem is None:
            log.info("%s disconnected before the poem was available", peer)
            return
        log.info("sending %d bytes of poetry to %s", len(poem), peer)
        await self._send(poem, writer, peer)

    async def _while_connected(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return the poem, or None if the client leaves before it is available."""
        wanted = asyncio.create_task(self._cache.poem())
        leaving = asyncio.create_task(self._client_left(reader))
        try:
            await asyncio.wait({wanted, leaving}, return_when=asyncio.FIRST_COMPLETED)
            return wanted.result() if wanted.done() else None
        finally:
            wanted.cancel()
            leaving.cancel()
            await asyncio.wait({wanted, leaving})

    async def _client_left(self, reader: asyncio.StreamReader) -> None:
        """Return when the client has probably left; what it sends is dropped."""
        with suppress(OSError):
            while await reader.read(_CHUNK):
                pass
            await asyncio.sleep(self._options.half_closed)

    async def _send(self, poem: bytes, writer: asyncio.StreamWriter, peer: str) -> None:
        writer.transport.set_write_buffer_limits(0)  # so that `drain` waits until everything is sent
        try:
            async with asyncio.timeout(self._options.send_timeout):
                writer.write(poem)
                await writer.drain()
        except TimeoutError:
            log.info("aborted %s, which did not read its poem within %g s", peer, self._options.send_timeout)
            writer.transport.abort()


@dataclass(frozen=True)
class PoemUpstream:
    """An upstream poetry server.

    A poem of more than ``limit`` bytes, and one that is not complete within ``timeout`` seconds, is refused.
    A server that resets the connection, or sends nothing at all, has sent no poem. Raises ConfigurationError,
    from the constructor, for an endpoint that is neither HOST:PORT nor a unix socket.
    """

    endpoint: Endpoint
    limit: int
    timeout: float

    def __post_init__(self) -> None:
        named = isinstance(self.endpoint, TcpEndpoint) and self.endpoint.host
        if not named and not isinstance(self.endpoint, UnixEndpoint):
            raise ConfigurationError(f"upstream {self.endpoint}", "expected HOST:PORT or unix:PATH")

    async def fetch(self) -> bytes:
        """Return the poem. Raises Unavailable, with the reason."""
        try:
            async with asyncio.timeout(self.timeout):
                reader, writer = await self._connect()
                try:
                    return await self._read(reader)
                finally:
                    writer.close()
        except TimeoutError as error:
            raise self._unavailable(f"it was not complete within {self.timeout:g} s") from error
        except OSError as error:
            raise self._unavailable(reason(error)) from error

    async def _connect(self) -> Stream:
        if isinstance(self.endpoint, UnixEndpoint):
            return Stream(*await asyncio.open_unix_connection(sock=connect_unix(self.endpoint)))
        assert isinstance(self.endpoint, TcpEndpoint)
        return Stream(*await asyncio.open_connection(self.endpoint.host, self.endpoint.port))

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        poem = bytearray()
        while chunk := await reader.read(_CHUNK):
            poem += chunk
            if len(poem) > self.limit:
                raise self._unavailable(f"the poem is longer than {self.limit} bytes")
        if not poem:
            raise self._unavailable("it sent nothing")
        return bytes(poem)

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(f"no poem from {self.endpoint}", why)
