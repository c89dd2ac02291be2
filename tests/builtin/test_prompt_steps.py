"""Lines that run on the event loop: they cannot hold it, and end alone."""

import asyncio

import pytest

from tamed.builtin._prompt._line import LoopLine, Outcome, Running, ThreadLine
from tamed.builtin._prompt._steps import Steps, Watchdog
from tests.builtin.streams import until

pytestmark = [pytest.mark.anyio, pytest.mark.both_loops]


async def test_a_step_without_end_is_interrupted() -> None:
    """A coroutine that computes for ever gets a KeyboardInterrupt, and the loop goes on."""

    async def forever() -> str:
        await asyncio.sleep(0)
        try:
            while True:
                pass
        except KeyboardInterrupt:
            return "interrupted"

    steps = Steps(forever())
    with Watchdog(steps, 0.02):
        assert await asyncio.create_task(steps) == "interrupted"


async def test_short_steps_are_left_alone() -> None:
    """A coroutine that waits for longer than a step may take is not interrupted."""
    steps = Steps(asyncio.sleep(0.1, "slept"))
    with Watchdog(steps, 0.01):
        assert await asyncio.create_task(steps) == "slept"


async def test_the_tasks_of_others_are_not_cancelled() -> None:
    """Cancelling what awaits a task of the service does not cancel that."""
    others = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)

    async def wait_for_it() -> None:
        await others

    mine = asyncio.create_task(Steps(wait_for_it()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    mine.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mine
    assert not others.cancelled()
    assert others.cancelling() == 0
    others.cancel()


async def test_the_result_of_another_task() -> None:
    """Awaiting a task of the service gives its result, or raises what it raised."""

    async def fail() -> None:
        raise ValueError("this")

    good, bad = asyncio.create_task(asyncio.sleep(0, 7)), asyncio.create_task(fail())

    async def wait_for(task: "asyncio.Task[int] | asyncio.Task[None]") -> object:
        return await task

    assert await asyncio.create_task(Steps(wait_for(good))) == 7
    with pytest.raises(ValueError, match="this"):
        await asyncio.create_task(Steps(wait_for(bad)))


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
    before = Running.stuck()
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
    assert Running.stuck() == before + 1
    released.set()
    await until(lambda: Running.stuck() == before)


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
