"""Opening in a thread."""

import asyncio
import threading

import pytest

from tamed.builtin._open_in_thread import open_in_thread

pytestmark = pytest.mark.anyio


async def test_what_was_made_for_a_cancelled_caller_is_closed() -> None:
    """As soon as it is made."""
    loop, begun, go_on, closed = (
        asyncio.get_running_loop(),
        asyncio.Event(),
        threading.Event(),
        asyncio.Event(),
    )

    def make() -> str:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(30)
        return "made"

    opening = loop.create_task(open_in_thread(make, lambda _: closed.set()))
    await begun.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    await closed.wait()


async def test_what_is_raised_goes_through() -> None:
    """And there is nothing to close."""
    with pytest.raises(ZeroDivisionError):
        await open_in_thread(lambda: 1 // 0, lambda _: pytest.fail("there is nothing"))
