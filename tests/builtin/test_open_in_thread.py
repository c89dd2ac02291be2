"""Opening in a thread."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tamed.builtin._rooted import open_in_thread
from tests.patience import PATIENCE


class Slow:
    """Something that is made when the test says so."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.closed = threading.Event(), threading.Event(), threading.Event()

    def make(self) -> str:
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        return "made"

    async def open(self) -> str:
        return await open_in_thread(self.make, lambda _: self.closed.set())


@pytest.mark.anyio
async def test_what_is_made_for_a_cancelled_caller_is_closed() -> None:
    """As soon as it is made."""
    slow = Slow()
    opening = asyncio.create_task(slow.open())
    assert await asyncio.to_thread(slow.begun.wait, 30)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not slow.closed.is_set()
    slow.go_on.set()
    assert await asyncio.to_thread(slow.closed.wait, 30)


@pytest.mark.anyio
async def test_what_was_made_for_a_caller_that_is_cancelled_before_it_gets_it_is_closed() -> None:
    """The thread has ended, the caller has not gone on yet."""
    the_only_thread = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(the_only_thread)
    slow = Slow()
    opening = asyncio.create_task(slow.open())
    await asyncio.sleep(0)
    slow.go_on.set()
    the_only_thread.submit(lambda: None).result(PATIENCE)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert slow.closed.is_set()


def test_what_is_made_after_the_event_loop_has_ended_is_closed() -> None:
    """As it is in a process that ends: every task is cancelled there."""
    slow = Slow()

    async def end_while_it_is_made() -> asyncio.Task[str]:
        opening = asyncio.create_task(slow.open())
        await asyncio.to_thread(slow.begun.wait, 30)
        asyncio.get_running_loop().call_soon(slow.go_on.set)
        return opening

    assert asyncio.run(end_while_it_is_made()).cancelled()
    assert slow.closed.is_set()


@pytest.mark.anyio
async def test_what_is_raised_goes_through() -> None:
    """No file is left to close."""
    with pytest.raises(ZeroDivisionError):
        await open_in_thread(lambda: 1 // 0, lambda _: pytest.fail("there is nothing"))
