"""What a session's lines print, on its way to the session's terminal."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

__all__ = ["Output"]

_CUT: Final = "\n... the output is cut here: a line may print {:,} characters\n"


class Output:
    """A text file for ``print`` that any thread may write to, and that sends so much for each line at most.

    ``send`` is called with text, in the event loop that this was made in. There are no locks, as whoever
    writes may be interrupted at any place; two threads that write at once may pass the limit by a little.
    """

    def __init__(self, send: Callable[[str], None], limit: int) -> None:
        self._send = send
        self._limit = limit
        self._used = 0
        self._pending: deque[str] = deque()
        self._loop = asyncio.get_running_loop()
        self._woken = False
        self._closed = False

    def write(self, text: str) -> int:
        """Take text; what is beyond the limit is dropped, and that is said once."""
        before, self._used = self._used, self._used + len(text)
        if before <= self._limit and not self._closed:
            self._pending.append(text[: self._limit - before])
            if self._used > self._limit:
                self._pending.append(_CUT.format(self._limit))
            self._wake()
        return len(text)

    def flush(self) -> None:
        """Do nothing: what was written is on its way."""

    def renew(self) -> None:
        """Let the next line begin: it has the whole limit for itself."""
        self._used = 0

    def deliver(self) -> None:
        """Send what has been written; for the event loop."""
        self._woken = False
        text = "".join(self._pending.popleft() for _ in range(len(self._pending)))
        if text and not self._closed:
            self._send(text)

    def close(self) -> None:
        """Drop what comes from now on: the session is over."""
        self._closed = True

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self.deliver)
