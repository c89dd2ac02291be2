"""Opening in a thread what must be closed again."""

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["open_in_thread"]

T = TypeVar("T")


async def open_in_thread(make: Callable[[], T], close: Callable[[T], object]) -> T:
    """Return what ``make`` returns, which is called in a thread; what it raises goes through.

    A thread cannot be cancelled: if the caller is, what was made is closed, by the thread if it is still at
    it. That does not depend on the event loop, which may have ended by then.
    """
    opening = _Opening(make, close)
    try:
        return await asyncio.get_running_loop().run_in_executor(None, opening.make)
    except asyncio.CancelledError:
        opening.abandon()
        raise


class _Opening(Generic[T]):
    """Closes what was made as soon as it has been both made and abandoned."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], object]) -> None:
        self._make = make
        self._close = close
        self._lock = threading.Lock()
        self._made: list[T] = []
        self._abandoned = False

    def make(self) -> T:
        made = self._make()
        with self._lock:
            self._made.append(made)
            abandoned = self._abandoned
        if abandoned:
            self._close(made)
        return made

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            made = self._made.copy()
        for one in made:
            self._close(one)
