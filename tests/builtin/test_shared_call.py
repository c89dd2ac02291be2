import asyncio

import pytest

from tamed.builtin.poetryproxy import SharedCall

pytestmark = pytest.mark.anyio


class Work:
    """A coroutine function that counts its calls, and ends when it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self.over = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.calls += 1
        try:
            await self.over.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return self.calls


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def begun(shared: SharedCall[int], count: int) -> list[asyncio.Task[int]]:
    """Return so many who wait for the result."""
    tasks = [asyncio.create_task(shared.result()) for _ in range(count)]
    await settle()
    return tasks


async def test_all_who_wait_share_one_call() -> None:
    """A caller after its end begins a new call."""
    work = Work()
    shared = SharedCall(work.__call__)
    tasks = await begun(shared, 100)
    work.over.set()
    assert await asyncio.gather(*tasks) == [1] * 100
    assert await shared.result() == 2


async def test_all_who_wait_share_an_exception() -> None:
    """The next call may end otherwise."""
    work = Work()
    shared = SharedCall(work.__call__)
    tasks = await begun(shared, 3)
    work.error = ValueError("no rhyme")
    work.over.set()
    assert await asyncio.gather(*tasks, return_exceptions=True) == [work.error] * 3
    work.error = None
    assert await shared.result() == 2


async def test_who_leaves_does_not_end_the_call_of_the_others() -> None:
    """The last one has the result."""
    work = Work()
    shared = SharedCall(work.__call__)
    *leaving, last = await begun(shared, 3)
    for task in leaving:
        task.cancel()
    await settle()
    work.over.set()
    assert await last == 1
    assert work.cancelled == 0


async def test_the_call_is_cancelled_when_the_last_has_left() -> None:
    """Who comes then, even before it has come to its end, begins another."""
    work = Work()
    shared = SharedCall(work.__call__)
    (task,) = await begun(shared, 1)
    task.cancel()
    (next_one,) = await begun(shared, 1)
    assert (work.calls, work.cancelled) == (2, 1)
    work.over.set()
    assert await next_one == 2


async def test_closing_ends_what_is_under_way() -> None:
    """Nothing is left when it returns."""
    work = Work()
    shared = SharedCall(work.__call__)
    (task,) = await begun(shared, 1)
    await shared.close()
    assert work.cancelled == 1
    with pytest.raises(asyncio.CancelledError):
        await task
    await shared.close()
