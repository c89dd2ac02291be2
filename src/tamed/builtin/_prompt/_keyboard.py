"""What somebody types into a session, in order, until the session asks for it."""

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["Interrupted", "Keyboard", "TooLong"]

_AHEAD: Final = 64
"""Lines that may be typed ahead before the connection is not read any more."""


class Interrupted(Exception):
    """Ctrl-C was pressed instead of a line's end."""


class TooLong(Exception):
    """A line was longer than lines may be, and is lost."""


class _Key(enum.Enum):
    INTERRUPT = enum.auto()
    TOO_LONG = enum.auto()


class Keyboard:
    """Lines, interruptions and the end of input, from a protocol to a session.

    ``reading`` is called with False when more was typed ahead than should be kept, and with True when there
    is room again. While ``interrupted`` is set, it is called for an interruption, and `next` knows nothing.
    """

    def __init__(self, reading: Callable[[bool], None]) -> None:
        self.interrupted: Callable[[], None] | None = None
        self._reading = reading
        self._typed: deque[str | _Key] = deque()
        self._at_end = False
        self._paused = False
        self._news = asyncio.Event()

    def line(self, text: str) -> None:
        """Take a line, without its end."""
        self._take(text)

    def too_long(self) -> None:
        """Take note of a line that was too long."""
        self._take(_Key.TOO_LONG)

    def interrupt(self) -> None:
        """Take a Ctrl-C. What was typed ahead is forgotten, as on any terminal."""
        self._typed.clear()
        if self.interrupted is not None:
            self.interrupted()
            self._resume()
        else:
            self._take(_Key.INTERRUPT)

    def end(self) -> None:
        """Take note that nothing more will come."""
        self._at_end = True
        self._news.set()

    async def next(self, seconds: float | None) -> str:
        """Return the next line.

        Raises Interrupted, TooLong, EOFError at the end of input, and TimeoutError if nothing comes for so
        many seconds.
        """
        async with asyncio.timeout(seconds):
            while not self._typed and not self._at_end:
                self._news.clear()
                await self._news.wait()
        if not self._typed:
            raise EOFError
        key = self._typed.popleft()
        self._resume()
        if key is _Key.INTERRUPT:
            raise Interrupted
        if key is _Key.TOO_LONG:
            raise TooLong
        assert isinstance(key, str)
        return key

    def _take(self, key: str | _Key) -> None:
        self._typed.append(key)
        self._news.set()
        if len(self._typed) >= _AHEAD and not self._paused:
            self._paused = True
            self._reading(False)

    def _resume(self) -> None:
        if self._paused and len(self._typed) < _AHEAD // 2:
            self._paused = False
            self._reading(True)
