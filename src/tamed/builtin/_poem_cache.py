"""The last good poem of a server that may be slow, or down."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from tamed.errors import TamedError, Unavailable
from tamed.log.logger import own_logger
from tamed.service.service import Service

__all__ = ["PoemCache", "SharedCall"]

T = TypeVar("T")

log = own_logger("poetryproxy")


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
