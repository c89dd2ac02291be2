"""What waits to be sent: bounded, so that a log which nobody takes never eats the memory of the service."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Loss", "Outbox"]


class Loss:
    """Counts lost lines until they are reported in the log. ``clock`` gives the seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._first = self._last = 0.0
        self._why = ""
        self.lines = 0
        self.total = 0  # of the whole life, reported or not

    def __bool__(self) -> bool:
        return self.lines > 0

    def add(self, lines: int, why: str) -> None:
        """Count lines that were lost now, for a reason; of several reasons the last one is reported."""
        self._last = self._clock()
        if not self.lines:
            self._first = self._last
        self._why = why
        self.lines += lines
        self.total += lines

    def sentence(self) -> str:
        """Say what was lost since the last `reported`."""
        lines = "1 line was" if self.lines == 1 else f"{self.lines} lines were"
        return f"{lines} lost between {_moment(self._first)} and {_moment(self._last)}: {self._why}"

    def export(self) -> list[Any]:
        """Return what is yet to be reported, as plain data."""
        return [self.lines, self._first, self._last, self._why] if self else []

    def resume(self, left: Sequence[Any]) -> None:
        """Go on with what another program had yet to report."""
        if left:
            lines, self._first, self._last, self._why = left
            self.lines += lines
            self.total += lines

    def reported(self) -> None:
        """Begin counting anew: the sentence is in the log."""
        self.lines = 0


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(seconds))


class Outbox:
    """Hands messages to a channel that may be slow or gone, in order; drops the newest when it is full.

    ``send`` takes one message and tells whether it could; it neither waits nor raises. ``note`` makes a
    message of a sentence about what was dropped. It is sent when all that had waited has gone, so it stands
    where the gap is. ``limit`` is in bytes. ``is_empty`` says whether nothing waits to be sent or reported.
    """

    def __init__(
        self,
        send: Callable[[bytes], bool],
        note: Callable[[str], bytes],
        *,
        limit: int = 1 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._send = send
        self._note = note
        self._limit = limit
        self.is_empty = True
        self._waiting: deque[bytes] = deque()
        self._held = 0
        self._loss = Loss(clock)

    @property
    def is_crowded(self) -> bool:
        """Whether more than half of the room is taken."""
        return 2 * self._held > self._limit

    @property
    def lost(self) -> int:
        """How many lines were dropped in all."""
        return self._loss.total

    def put(self, message: bytes, lines: int = 1) -> bool:
        """Send a message, or keep it until that is possible; tell whether it was sent.

        It counts as so many lines if it is dropped.
        """
        if (self.is_empty or self.flush()) and self._send(message):
            return True
        self.is_empty = False
        if self._loss or self._held + len(message) > self._limit:
            self._loss.add(lines, "the log did not take them")
            return False
        self._waiting.append(message)
        self._held += len(message)
        return False

    def flush(self) -> bool:
        """Send what can be sent now; tell whether that is all."""
        while self._waiting:
            if not self._send(self._waiting[0]):
                return False
            self._held -= len(self._waiting.popleft())
        if self._loss and self._send(self._note(self._loss.sentence())):
            self._loss.reported()
        self.is_empty = not self._loss
        return self.is_empty
