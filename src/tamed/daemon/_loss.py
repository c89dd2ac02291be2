"""What could not be written: how many lines, in what time, and why."""

import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Loss"]


class Loss:
    """Counts lost lines, until somebody has been told. ``clock`` gives the seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._first = self._last = 0.0
        self._why = ""
        self.lines = 0
        self.total = 0  # of the whole life, told or not

    def __bool__(self) -> bool:
        return self.lines > 0

    def add(self, lines: int, why: str) -> None:
        """Count lines that were lost now, for a reason; of several reasons the last one is told."""
        self._last = self._clock()
        if not self.lines:
            self._first = self._last
        self._why = why
        self.lines += lines
        self.total += lines

    def sentence(self) -> str:
        """Say what was lost since the last :meth:`told`."""
        lines = "1 line was" if self.lines == 1 else f"{self.lines} lines were"
        return f"{lines} lost between {_moment(self._first)} and {_moment(self._last)}: {self._why}"

    def export(self) -> list[Any]:
        """Return what is yet to be told, as plain data."""
        return [self.lines, self._first, self._last, self._why] if self else []

    def resume(self, left: Sequence[Any]) -> None:
        """Go on with what another program had yet to tell."""
        if left:
            lines, self._first, self._last, self._why = left
            self.lines += lines
            self.total += lines

    def told(self) -> None:
        """Begin counting anew: the sentence is where somebody will read it."""
        self.lines = 0


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(seconds))
