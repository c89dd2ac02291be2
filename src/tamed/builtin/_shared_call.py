"""One call for all who want its result at the same time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

__all__ = ["SharedCall"]

T = TypeVar("T")


class SharedCall(Generic[T]):
    """Calls a coroutine function once for all who wait at the same time, and cancels it when nobody does.

    Who comes while it is being called waits for the same result, or the same exception. Who is cancelled
    leaves; when the last has left, the call is cancelled, and whoever comes then begins a new one.
    """

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._call = call
        self._task: asyncio.Task[T] | None = None  # the one that can be joined
        self._waiting = 0  # for that one
        self._tasks: set[asyncio.Task[T]] = set()  # that one, and those that were cancelled and are not over

    async def result(self) -> T:
        """Wait for the result of the call that is under way, or of a new one."""
        task = self._task or self._begin()
        self._waiting += 1
        try:
            await asyncio.wait([task])
        finally:
            self._leave(task)
        return task.result()

    async def close(self) -> None:
        """Cancel what is under way, and wait for its end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self) -> asyncio.Task[T]:
        self._task = task = asyncio.create_task(self._call())
        self._waiting = 0
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if self._task is task:
            self._task = None

    def _leave(self, task: asyncio.Task[T]) -> None:
        if self._task is task:
            self._waiting -= 1
            if not self._waiting:
                self._task = None
                task.cancel()
