"""Lines while they run: how they are interrupted, and what is not interrupted with them."""

import asyncio

import pytest

from tamed.builtin._prompt.line import LoopLine, Outcome, Running, ThreadLine
from tests.builtin.streams import until

pytestmark = [pytest.mark.anyio, pytest.mark.both_loops]


async def test_own_tasks_are_cancelled() -> None:
    """What a line began itself is cancelled with it, as always in asyncio."""
    begun: list[asyncio.Task[None]] = []

    async def begin_one() -> Outcome:
        begun.append(asyncio.create_task(asyncio.sleep(3600)))
        await begun[0]
        return Outcome.DONE

    line = LoopLine(begin_one())
    running = Running(line, 60, 60)
    ending = asyncio.create_task(running.finish())
    await until(lambda: begun)
    await asyncio.sleep(0)
    running.interrupt()
    assert await ending is Outcome.INTERRUPTED
    assert begun[0].cancelled()


async def test_a_line_that_is_interrupted_before_it_begins_says_so() -> None:
    """It could not tell anything itself."""
    line = ThreadLine(lambda: Outcome.DONE)
    line.interrupt()
    assert await line.run() is Outcome.INTERRUPTED


async def test_a_line_is_interrupted_at_its_time_limit() -> None:
    """A line in a thread that never ends is interrupted when its seconds are over."""

    def forever() -> Outcome:
        while True:
            pass

    assert await Running(ThreadLine(forever), 0.02, 60).finish() is Outcome.INTERRUPTED


async def test_a_line_that_does_not_end_is_left_to_itself() -> None:
    """One that cannot be interrupted is counted until it ends."""
    before = Running.abandoned()
    released = asyncio.Event()

    async def stubborn() -> Outcome:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue
        return Outcome.DONE

    line = LoopLine(stubborn())
    assert await Running(line, 0.01, 0.01).finish() is Outcome.STUCK
    assert Running.abandoned() == before + 1
    released.set()
    await until(lambda: Running.abandoned() == before)


async def test_whoever_stops_waiting_interrupts_the_line() -> None:
    """If what waits for a line is cancelled, because its client has left, the line is too."""
    loop = asyncio.get_running_loop()
    begun, ended = asyncio.Event(), asyncio.Event()

    def forever() -> Outcome:
        try:
            loop.call_soon_threadsafe(begun.set)
            while True:
                pass
        finally:
            loop.call_soon_threadsafe(ended.set)

    waiting = asyncio.create_task(Running(ThreadLine(forever), 60, 60).finish())
    await begun.wait()
    waiting.cancel()
    await ended.wait()
    with pytest.raises(asyncio.CancelledError):
        await waiting
