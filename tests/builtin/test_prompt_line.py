"""Lines while they run: how they are interrupted, and what is not interrupted with them."""

import asyncio
import random
import threading
from typing import TypeVar

import pytest

from tamed.builtin._prompt.line import InterruptibleCall, LoopLine, Outcome, Running, ThreadLine
from tests.builtin.streams import until

pytestmark = pytest.mark.anyio

T = TypeVar("T")


@pytest.mark.both_loops
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


@pytest.mark.both_loops
async def test_a_line_that_is_interrupted_before_it_begins_says_so() -> None:
    """It could not tell anything itself."""
    line = ThreadLine(lambda: Outcome.DONE)
    line.interrupt()
    assert await line.run() is Outcome.INTERRUPTED


@pytest.mark.both_loops
async def test_a_line_is_interrupted_at_its_time_limit() -> None:
    """A line in a thread that never ends is interrupted when its seconds are over."""

    def forever() -> Outcome:
        while True:
            pass

    assert await Running(ThreadLine(forever), 0.02, 60).finish() is Outcome.INTERRUPTED


@pytest.mark.both_loops
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


@pytest.mark.both_loops
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


def interrupted_after(begun: threading.Event, call: InterruptibleCall[T]) -> threading.Thread:
    """Begin a thread that interrupts once something has begun."""

    def watch() -> None:
        begun.wait()
        call.interrupt()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_function_that_never_ends_is_interrupted() -> None:
    """KeyboardInterrupt is raised in a loop without end."""
    begun = threading.Event()

    def forever() -> None:
        begun.set()
        while True:
            pass

    call = InterruptibleCall(forever)
    thread = interrupted_after(begun, call)
    with pytest.raises(KeyboardInterrupt):
        call.run()
    thread.join()


def test_what_is_asked_before_the_beginning() -> None:
    """A function that is to be interrupted before it begins is not called."""
    call = InterruptibleCall(lambda: pytest.fail("called"))
    call.interrupt()
    with pytest.raises(KeyboardInterrupt):
        call.run()


def test_what_comes_too_late() -> None:
    """An interruption after the end does nothing, and what was returned stays."""
    call = InterruptibleCall(lambda: 7)
    assert call.run() == 7
    call.interrupt()


def test_exceptions_pass() -> None:
    """Exceptions of the function are raised."""
    with pytest.raises(ZeroDivisionError):
        InterruptibleCall(lambda: 1 // 0).run()


def test_an_interruption_never_hits_what_comes_next() -> None:
    """Whenever it comes, it is raised by `run` or not at all: a thousand functions that end just then."""
    dice = random.Random(7)
    for _ in range(1000):
        begun = threading.Event()
        turns = dice.randrange(2000)

        def work(begun: threading.Event = begun, turns: int = turns) -> int:
            begun.set()
            return sum(1 for _ in range(turns))

        call = InterruptibleCall(work)
        thread = interrupted_after(begun, call)
        try:
            outcome = call.run()
        except KeyboardInterrupt:
            outcome = None
        # Any left over would be raised here, and fail the test.
        for _ in range(100):
            pass
        thread.join()
        assert outcome in {None, turns}
