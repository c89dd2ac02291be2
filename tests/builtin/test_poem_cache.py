import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from tamed.builtin.poetryproxy import PoemCache
from tamed.errors import Unavailable
from tamed.testing.clock import VirtualClockLoop

T = TypeVar("T")


class Fetch:
    """Takes a second, and gives numbered poems or raises."""

    def __init__(self) -> None:
        self.count = 0
        self.down = False

    async def __call__(self) -> bytes:
        await asyncio.sleep(1)
        self.count += 1
        if self.down:
            raise Unavailable("no poem from upstream", "Connection refused")
        return b"poem %d" % self.count


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


def cache(fetch: Fetch, keep: float | None = None) -> PoemCache:
    """Return a cache that refreshes after a minute."""
    return PoemCache(fetch.__call__, refresh=60, keep=keep, retry=5, source="up:1")


def test_a_poem_is_fetched_when_it_is_first_asked_for() -> None:
    """Not at the start: the upstream may be down then."""

    async def main() -> None:
        fetch = Fetch()
        async with cache(fetch) as poems:
            assert poems.summary == "up:1"
            assert poems.fresh is None
            await asyncio.sleep(100)
            assert fetch.count == 0
            assert await poems.poem() == b"poem 1"
            assert poems.fresh == b"poem 1"
            assert poems.summary == "up:1, 6 bytes"

    run(main())


def test_it_is_fetched_anew_when_it_is_older_than_the_limit() -> None:
    """All requests at that time share one fetch."""

    async def main() -> None:
        fetch = Fetch()
        async with cache(fetch) as poems:
            await poems.poem()
            await asyncio.sleep(59.9)
            assert await poems.poem() == b"poem 1"
            await asyncio.sleep(0.1)
            assert await asyncio.gather(*(poems.poem() for _ in range(1000))) == [b"poem 2"] * 1000
            assert fetch.count == 2

    run(main())


def test_the_last_good_poem_is_given_while_the_upstream_is_down() -> None:
    """However long; who comes soon after a failure does not wait for another."""

    async def main() -> None:
        fetch = Fetch()
        clock = asyncio.get_running_loop().time
        async with cache(fetch) as poems:
            await poems.poem()
            fetch.down = True
            await asyncio.sleep(3600)
            assert await poems.poem() == b"poem 1"
            failed = clock()
            await asyncio.sleep(4.9)
            assert await poems.poem() == b"poem 1"
            assert clock() == failed + 4.9
            assert poems.summary == "up:1, 6 bytes, Connection refused"
            assert fetch.count == 2
            fetch.down = False
            await asyncio.sleep(0.1)
            assert await poems.poem() == b"poem 3"
            assert poems.summary == "up:1, 6 bytes"

    run(main())


def test_a_poem_that_is_too_old_is_not_given() -> None:
    """If there is a limit to what is kept; the reason is that of the fetch."""

    async def main() -> None:
        fetch = Fetch()
        async with cache(fetch, keep=120) as poems:
            await poems.poem()
            fetch.down = True
            await asyncio.sleep(100)
            assert await poems.poem() == b"poem 1"
            await asyncio.sleep(20)
            with pytest.raises(
                Unavailable, match="there is no poem: no poem from upstream: Connection refused"
            ):
                await poems.poem()

    run(main())


def test_a_client_that_asks_for_a_missing_poem_is_notified() -> None:
    """At once, until it is time for another attempt."""

    async def main() -> None:
        fetch = Fetch()
        fetch.down = True
        async with cache(fetch) as poems:
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await poems.poem()
            assert fetch.count == 1

    run(main())


def test_a_stop_ends_the_fetch() -> None:
    """A cache that is started again begins without a poem."""

    async def main() -> None:
        fetch = Fetch()
        poems = cache(fetch)
        async with poems:
            asked = asyncio.create_task(poems.poem())
            await asyncio.sleep(0.5)
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert fetch.count == 0
        async with poems:
            assert await poems.poem() == b"poem 1"

    run(main())
