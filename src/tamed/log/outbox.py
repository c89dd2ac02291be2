"""A bounded queue of messages to send, so that a log without a reader does not fill the service's memory."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Loss", "Outbox"]


class Loss:
    """Counts lost lines until they are reported in the log. ``clock`` returns the seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._first = self._last = 0.0
        self._why = ""
        self.lines = 0
        self.total = 0  # reported or not

    def __bool__(self) -> bool:
        return self.lines > 0

    def add(self, lines: int, why: str) -> None:
        """Count lines that are lost now, with the reason; only the last reason is reported."""
        self._last = self._clock()
        if not self.lines:
            self._first = self._last
        self._why = why
        self.lines += lines
        self.total += lines

    def sentence(self) -> str:
        """Return a sentence about the lines lost since the last `reported`."""
        lines = "1 line was" if self.lines == 1 else f"{self.lines} lines were"
        return f"{lines} lost between {_moment(self._first)} and {_moment(self._last)}: {self._why}"

    def export(self) -> list[Any]:
        """Return the loss that is yet to be reported, as plain data."""
        return [self.lines, self._first, self._last, self._why] if self else []

    def resume(self, left: Sequence[Any]) -> None:
        """Add the loss that the previous program had yet to report."""
        if left:
            lines, self._first, self._last, self._why = left
            self.lines += lines
            self.total += lines

    def reported(self) -> None:
        """Begin counting again: the sentence is in the log."""
        self.lines = 0


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(seconds))


class Outbox:
    """Passes messages, in order, to a channel that may be slow or closed; drops the newest when it is full.

    ``send`` sends one message and returns whether that was possible; it neither waits nor raises.
    ``loss_message`` formats a sentence about dropped messages. It is sent after all queued messages, so it
    marks the gap. ``limit`` is in bytes. ``is_empty`` is whether nothing is queued or unreported.
    """

    def __init__(
        self,
        send: Callable[[bytes], bool],
        loss_message: Callable[[str], bytes],
        *,
        limit: int = 1 << 20,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._send = send
        self._loss_message = loss_message
        self._limit = limit
        self.is_empty = True
        self._waiting: deque[bytes] = deque()
        self._held = 0
        self._loss = Loss(clock)

    @property
    def is_crowded(self) -> bool:
        """Whether more than half of the limit is used."""
        return 2 * self._held > self._limit

    @property
    def lost(self) -> int:
        """The total number of dropped lines."""
        return self._loss.total

    def trouble(self, place: str) -> str:
        """Return a sentence about messages that wait for a place or are dropped; empty if there are none."""
        if self.is_empty:
            return ""
        lost = f"; {self._loss.sentence()}" if self._loss else ""
        return f"cannot send the log to {place}: nothing listens there, or it is too slow{lost}"

    def put(self, message: bytes, lines: int = 1) -> bool:
        """Send a message, or queue it; return whether it was sent.

        ``lines`` is the number of lines to count if it is dropped.
        """
        if (self.is_empty or self.flush()) and self._send(message):
            return True
        self.is_empty = False
        if self._loss or self._held + len(message) > self._limit:
            self._loss.add(lines, "the log did not accept them")
            return False
        self._waiting.append(message)
        self._held += len(message)
        return False

    def flush(self) -> bool:
        """Send the messages that can be sent now; return whether the queue is empty."""
        while self._waiting:
            if not self._send(self._waiting[0]):
                return False
            self._held -= len(self._waiting.popleft())
        if self._loss and self._send(self._loss_message(self._loss.sentence())):
            self._loss.reported()
        self.is_empty = not self._loss
        return self.is_empty
