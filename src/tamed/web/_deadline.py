"""A deadline that can be moved without creating a new timer."""

import asyncio
from collections.abc import Callable

__all__ = ["MovingDeadline"]


class MovingDeadline:
    """Calls ``expired`` when the deadline passes, unless it is moved or cleared before.

    A timer that fires too early checks the deadline, and waits for the rest. Creating and cancelling a timer
    for each wait would be an eighth of the cost of a request.
    """

    __slots__ = ("_at", "_expired", "_loop", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @property
    def is_set(self) -> bool:
        """Whether there is a deadline."""
        return self._at is not None

    def set(self, seconds: float) -> None:
        """Move the deadline to some seconds from now."""
        self.move_to(self._loop.time() + seconds)

    def move_to(self, at: float) -> None:
        """Move the deadline to a time of the loop."""
        self._at = at
        if self._timer is None or at < self._timer_at:
            self._start(at)

    def clear(self) -> None:
        """Remove the deadline, until the next one is set."""
        self._at = None

    def close(self) -> None:
        """Cancel the timer: ``expired`` is not called any more."""
        self._at = None
        self._expired = _ignore  # breaks a reference cycle: it is usually a method of the owner
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._at is None:
            return
        if self._loop.time() < self._at:
            self._start(self._at)
        else:
            self._at = None
            self._expired()


def _ignore() -> None:
    pass
