"""What waits to be sent: bounded, so that a log which nobody takes never eats the memory of the service."""

import time
from collections import deque
from collections.abc import Callable

from tamed.daemon._loss import Loss

__all__ = ["Outbox"]


class Outbox:
    """Hands messages to a channel that may be slow or gone, in order; drops the newest when it is full.

    ``send`` takes one message and tells whether it could; it neither waits nor raises. ``note`` makes a
    message of a sentence about what was dropped. It is sent when all that had waited has gone, so it stands
    where the gap is. ``limit`` is in bytes.
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
        self._waiting: deque[bytes] = deque()
        self._held = 0
        self._loss = Loss(clock)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be sent or told."""
        return not self._waiting and not self._loss

    @property
    def is_crowded(self) -> bool:
        """Whether more than half of the room is taken."""
        return 2 * self._held > self._limit

    @property
    def lost(self) -> int:
        """How many lines were dropped in all."""
        return self._loss.total

    def put(self, message: bytes, lines: int = 1) -> None:
        """Send a message, or keep it until that is possible; it counts as so many lines if it is dropped."""
        self.flush()
        if self.is_empty and self._send(message):
            return
        if self._loss or self._held + len(message) > self._limit:
            self._loss.add(lines, "the log did not take them")
            return
        self._waiting.append(message)
        self._held += len(message)

    def flush(self) -> None:
        """Send what can be sent now."""
        while self._waiting:
            if not self._send(self._waiting[0]):
                return
            self._held -= len(self._waiting.popleft())
        if self._loss and self._send(self._note(self._loss.sentence())):
            self._loss.told()
