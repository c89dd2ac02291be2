"""One line while it runs: in a thread of its own, or as a task on the event loop if it awaits something."""

import asyncio
import enum
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, Protocol

from tamed.builtin._prompt._guard import Guard
from tamed.builtin._prompt._steps import Steps, Watchdog

__all__ = ["Line", "LoopLine", "Outcome", "Running", "ThreadLine"]

_HOLD: Final = 0.5
"""Seconds that a line may hold the event loop; up to twice that, as the watchdog looks now and then."""


class Outcome(enum.Enum):
    """How a line ended."""

    DONE = enum.auto()
    FAILED = enum.auto()
    LEFT = enum.auto()
    """It asked for the end of the session."""
    INTERRUPTED = enum.auto()
    """It was interrupted before it could do anything, or when it had ended: it has told nothing of that."""
    STUCK = enum.auto()
    """It was interrupted, and goes on all the same."""


class Line(Protocol):
    """A line that can be run, once."""

    async def run(self) -> Outcome:
        """Run it to its end. Cancelling this leaves the line alone."""
        ...

    def interrupt(self) -> None:
        """Ask it to end; it may take its time, or not."""
        ...


class ThreadLine:
    """Runs work in a thread of its own, which neither holds the event loop nor keeps the process alive."""

    def __init__(self, work: Callable[[], Outcome]) -> None:
        self._work = work
        self._guard = Guard()
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Outcome] = self._loop.create_future()

    async def run(self) -> Outcome:
        """Run it to its end."""
        threading.Thread(target=self._main, name="prompt-line", daemon=True).start()
        return await self._ended

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in it."""
        self._guard.interrupt()

    def _main(self) -> None:
        try:
            outcome = self._guard.run(self._work)
        except KeyboardInterrupt:  # it came before the work began, or when it was done
            outcome = Outcome.INTERRUPTED
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._end, outcome)

    def _end(self, outcome: Outcome) -> None:
        if not self._ended.done():
            self._ended.set_result(outcome)


class LoopLine:
    """Runs work as a task, whose steps are interrupted if they hold the event loop."""

    def __init__(self, work: Coroutine[Any, Any, Outcome], *, hold: float = _HOLD) -> None:
        self._steps = Steps(work)
        self._hold = hold
        self._task: asyncio.Task[Outcome] | None = None
        self._asked = False

    async def run(self) -> Outcome:
        """Run it to its end."""
        self._task = asyncio.create_task(self._steps, name="prompt-await")
        if self._asked:
            self._task.cancel()
        with Watchdog(self._steps, self._hold):
            await asyncio.wait({self._task})
        return Outcome.INTERRUPTED if self._task.cancelled() else self._task.result()

    def interrupt(self) -> None:
        """Cancel it."""
        self._asked = True
        if self._task is not None:
            self._task.cancel()


class Running:
    """A line that has been started, and is given so many ``seconds``.

    One that was interrupted, by the user or by the time limit, has ``grace`` seconds to end; then it is left
    to itself.
    """

    def __init__(self, line: Line, seconds: float, grace: float) -> None:
        self._line = line
        self._seconds = seconds
        self._grace = grace
        self._interrupted = asyncio.Event()

    def interrupt(self) -> None:
        """Ask the line to end; may be called more than once, as some lines want it twice."""
        self._interrupted.set()
        self._line.interrupt()

    async def finish(self) -> Outcome:
        """Run the line, and return how it ended. If this is cancelled, the line is interrupted."""
        ending = asyncio.create_task(self._line.run(), name="prompt-line")
        asked = asyncio.create_task(self._interrupted.wait(), name="prompt-interrupt")
        try:
            await asyncio.wait({ending, asked}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                self._line.interrupt()
                await asyncio.wait({ending}, timeout=self._grace)
        finally:
            asked.cancel()
            if not ending.done():
                self._line.interrupt()
                _left_to_themselves.add(ending)
                ending.add_done_callback(_left_to_themselves.discard)
        return ending.result() if ending.done() else Outcome.STUCK

    @staticmethod
    def stuck() -> int:
        """Return how many lines in this process were left to themselves and have not ended."""
        return len(_left_to_themselves)


_left_to_themselves: "set[asyncio.Task[Outcome]]" = set()  # the event loop holds its tasks weakly
