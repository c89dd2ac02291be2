"""Between a session and its terminal: bytes to lines, a queue of the input, and the output."""

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

__all__ = ["Interrupted", "Keyboard", "Lines", "Output", "Screen", "TooLong"]

_AHEAD: Final = 64
"""Lines that may be typed ahead; with more, reading from the connection pauses."""

_CUT: Final = "\n... output truncated: the limit for a line is {:,} characters\n"


class Screen(Protocol):
    """The display of a session."""

    def write(self, text: str) -> None:
        r"""Show text, with ``\n`` as the end of a line."""
        ...

    async def drain(self) -> None:
        """Wait until the buffer has space."""
        ...


class Interrupted(Exception):
    """Ctrl-C was pressed instead of the end of a line."""


class TooLong(Exception):
    """A line was too long, and is dropped."""


class _Key(enum.Enum):
    INTERRUPT = enum.auto()
    TOO_LONG = enum.auto()


class Keyboard:
    """Lines, interruptions and the end of input, queued from a protocol to a session.

    ``set_reading`` is called with False when too much was typed ahead, and with True when there is room
    again. While ``on_interrupt`` is set, it is called for an interruption, and `next` does not return one.
    """

    def __init__(self, set_reading: Callable[[bool], None]) -> None:
        self.on_interrupt: Callable[[], None] | None = None
        self._set_reading = set_reading
        self._typed: deque[str | _Key] = deque()
        self._at_end = False
        self._paused = False
        self._news = asyncio.Event()

    def line(self, text: str) -> None:
        """Queue a line, without its end."""
        self._put(text)

    def too_long(self) -> None:
        """Queue the fact that a line was too long."""
        self._put(_Key.TOO_LONG)

    def interrupt(self) -> None:
        """Handle a Ctrl-C. Lines that were typed ahead are dropped, as on any terminal."""
        self._typed.clear()
        if self.on_interrupt is not None:
            self.on_interrupt()
            self._resume()
        else:
            self._put(_Key.INTERRUPT)

    def end(self) -> None:
        """Handle the end of input."""
        self._at_end = True
        self._news.set()

    async def next(self, seconds: float | None) -> str:
        """Return the next line.

        Raises Interrupted, TooLong, EOFError at the end of input, and TimeoutError if nothing comes for that
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

    def _put(self, key: str | _Key) -> None:
        self._typed.append(key)
        self._news.set()
        if len(self._typed) >= _AHEAD and not self._paused:
            self._paused = True
            self._set_reading(False)

    def _resume(self) -> None:
        if self._paused and len(self._typed) < _AHEAD // 2:
            self._paused = False
            self._set_reading(True)


class Lines:
    r"""Splits bytes that come in pieces of any size into lines.

    A line ends with ``\r\n``, ``\r\0``, ``\n`` or a ``\r`` that something else follows, which are all the
    ways of terminals and of telnet (RFC 854, page 11). ``on_line`` is called with each, decoded from UTF-8
    with replacement characters. ``on_too_long`` is called, once and at its end, for a line of more than
    ``longest`` bytes, of which no more is kept.
    """

    def __init__(self, on_line: Callable[[str], None], on_too_long: Callable[[], None], longest: int) -> None:
        self._on_line = on_line
        self._on_too_long = on_too_long
        self._longest = longest
        self._part = bytearray()
        self._after_return = False

    def feed(self, data: bytes) -> None:
        """Add bytes."""
        if self._after_return and data[:1] in {b"\n", b"\0"}:
            data = data[1:]
            self._after_return = False
        if not data:
            return
        self._after_return = data.endswith(b"\r")
        *whole, part = data.replace(b"\r\n", b"\n").replace(b"\r\0", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            self._keep(line)
            self._end()
        self._keep(part)

    def finish(self) -> None:
        """Handle the end of input: an incomplete line is the last."""
        if self._part:
            self._end()

    def _keep(self, piece: bytes) -> None:
        self._part += piece[: self._longest + 1 - len(self._part)]

    def _end(self) -> None:
        line = bytes(self._part)
        self._part.clear()
        if len(line) > self._longest:
            self._on_too_long()
        else:
            self._on_line(line.decode(errors="replace"))


class Output:
    """A text file for ``print`` that any thread may write to, with a limit for each line of the session.

    ``send`` is called with text, in the event loop that this was made in. There are no locks, because a
    writer may be interrupted at any place; two threads that write at once may pass the limit by a little.
    """

    def __init__(self, send: Callable[[str], None], limit: int) -> None:
        self._send = send
        self._limit = limit
        self._used = 0
        self._pending: deque[str] = deque()
        self._loop = asyncio.get_running_loop()
        self._is_scheduled = False
        self._is_closed = False

    def write(self, text: str) -> int:
        """Queue text; beyond the limit it is dropped, and one message reports that."""
        before, self._used = self._used, self._used + len(text)
        if before <= self._limit and not self._is_closed:
            self._pending.append(text[: self._limit - before])
            if self._used > self._limit:
                self._pending.append(_CUT.format(self._limit))
            self._schedule()
        return len(text)

    def flush(self) -> None:
        """Do nothing: written text is already on its way."""

    def renew(self) -> None:
        """Reset the limit for the next line."""
        self._used = 0

    def deliver(self) -> None:
        """Send the queued text; to be called in the event loop."""
        self._is_scheduled = False
        text = "".join(self._pending.popleft() for _ in range(len(self._pending)))
        if text and not self._is_closed:
            self._send(text)

    def close(self) -> None:
        """Drop all later text: the session is over."""
        self._is_closed = True

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            with suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(self.deliver)
