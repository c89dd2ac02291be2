"""Opening in a thread what must be closed again."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

__all__ = ["open_in_thread"]

T = TypeVar("T")


async def open_in_thread(make: Callable[[], T], close: Callable[[T], object]) -> T:
    """Return what ``make`` returns, which is called in a thread; what it raises goes through.

    A thread cannot be cancelled: if the caller is, what was made is closed.
    """
    making = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(lambda made: _close_made(made, close))
        raise


def _close_made(made: "asyncio.Future[T]", close: Callable[[T], object]) -> None:
    if not made.cancelled() and made.exception() is None:
        close(made.result())
