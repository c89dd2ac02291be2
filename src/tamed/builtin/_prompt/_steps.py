"""A coroutine that cannot hold the event loop: a step that takes too long is interrupted from a thread.

While a coroutine computes, its event loop stands still, and with it everything that could tell it to stop. So
a thread looks from outside.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

from tamed.builtin._prompt._guard import Guard

__all__ = ["Steps", "Watchdog"]

T = TypeVar("T")


class Steps(Coroutine[Any, Any, T]):
    """Runs a coroutine, whose steps can be interrupted; to be made into a task.

    Tasks that existed before it are not cancelled when it is cancelled while it awaits one of them: only the
    waiting ends.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._others = WeakSet(asyncio.all_tasks())
        self.guard: Guard | None = None  # of the step that is being taken

    def send(self, value: Any, /) -> Any:
        """Take a step."""
        return self._step(lambda: self._coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        """Take a step that begins with an exception: the task's cancellation."""
        return self._step(lambda: self._coroutine.throw(*error))

    def close(self) -> None:
        """End the coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        raise TypeError("make it a task")

    def _step(self, step: Callable[[], Any]) -> Any:
        self.guard = Guard()
        try:
            awaited = self.guard.run(step)
        except KeyboardInterrupt:  # it came when the step was over; from a task it would end the event loop
            raise asyncio.CancelledError from None
        finally:
            self.guard = None
        return self._spared(awaited) if awaited in self._others else awaited

    def _spared(self, other: "asyncio.Task[Any]") -> Any:
        """Return what to wait for instead of another's task."""
        return next(asyncio.shield(other).__await__())


class Watchdog:
    """Interrupts every step that takes more than ``seconds``, and less than twice that, inside a ``with``."""

    def __init__(self, steps: Steps[Any], seconds: float) -> None:
        self._steps = steps
        self._seconds = seconds
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="prompt-watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def _watch(self) -> None:
        seen = None
        while not self._over.wait(self._seconds):
            guard = self._steps.guard
            if guard is not None and guard is seen:
                guard.interrupt()
            seen = guard
