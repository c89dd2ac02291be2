"""The last good poem of a server that may be slow, or down."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tamed.builtin._shared_call import SharedCall
from tamed.errors import TamedError, Unavailable
from tamed.log.logger import own_logger
from tamed.service.service import Service

__all__ = ["PoemCache"]

log = own_logger("poetryproxy")


class PoemCache(Service):
    """Keeps the poem that ``fetch`` returned last, and fetches it anew when somebody wants a fresher one.

    ``refresh``, ``keep`` and ``retry`` are seconds on the event loop's clock:

    - a poem that was fetched less than ``refresh`` ago is given at once;
    - an older one is fetched anew, once for all who ask meanwhile, and they wait for that. If ``fetch``
      raises a `TamedError`, they get the one that there is, if that was fetched less than ``keep`` ago
      (None: however old it is);
    - after a failure nobody waits for another attempt until ``retry`` has passed.

    A fetch that nobody waits for any more is cancelled, and is no failure. ``source`` says in the summary
    where poems are from.
    """

    def __init__(
        self,
        fetch: Callable[[], Coroutine[Any, Any, bytes]],
        *,
        refresh: float,
        keep: float | None,
        retry: float,
        source: str = "",
        name: str = "poem",
    ) -> None:
        super().__init__(name)
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
        """Where the poem is from, how long it is, and why the last fetch failed, as far as there is that."""
        length = "" if self._poem is None else f"{len(self._poem)} bytes"
        failure = "" if self._failure is None else self._failure.why
        return ", ".join(filter(None, (self._source, length, failure)))

    @property
    def fresh(self) -> bytes | None:
        """The poem, if nobody has to wait for it."""
        return self._poem if self._poem is not None and self._age() < self._refresh else None

    async def poem(self) -> bytes:
        """Return the poem, after a fetch if need be. Raises Unavailable if there is none."""
        if self.fresh is None and self._may_fetch():
            await self._fetching.result()
        if self._poem is not None and (self._keep is None or self._age() < self._keep):
            return self._poem
        assert self._failure is not None
        raise Unavailable("there is no poem", str(self._failure))

    async def start(self) -> None:
        """Begin without a poem: the upstream may be down, and is asked when the first client comes."""
        self._poem = self._failure = None

    async def stop(self) -> None:
        """Cancel the fetch that is under way."""
        await self._fetching.close()

    async def _fetch_once(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            poem = await self._fetch()
        except TamedError as error:
            self._failure, self._failed = error, clock()
            log.warning(
                "%s; %s", error, "there is none to serve" if self._poem is None else "the last one is kept"
            )
        else:
            self._poem, self._fetched, self._failure = poem, clock(), None
            log.info("fetched a poem of %d bytes", len(poem))

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._fetched

    def _may_fetch(self) -> bool:
        return self._failure is None or asyncio.get_running_loop().time() - self._failed >= self._retry
