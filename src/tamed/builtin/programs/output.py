"""The output of a program, from a pipe to the log, line by line."""

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Final

__all__ = ["Lines", "Output"]

_READ: Final = 4096
"""Bytes to read in one turn of the event loop, so that a program with endless output does not block it."""

_PATIENCE: Final = 1.0
"""Seconds to wait for the end of the output of an ended program."""

_MORE: Final = " [...]"

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Lines:
    r"""Splits bytes that come in pieces into lines.

    A line longer than ``limit`` bytes is cut, not within a character, and all but its last piece end in
    ``[...]``. Bytes that are not UTF-8 and control characters, tabs aside, are written as ``\x1b``, so that
    a program can neither forge a line of the log nor control the terminal of its reader. Empty lines are
    left out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 4)
        self._part = b""

    def feed(self, data: bytes) -> list[str]:
        """Add bytes, and return the lines that they complete; little more than the limit is kept."""
        *whole, self._part = (self._part + data).split(b"\n")
        lines = [text for line in whole for text in self._pieces(line)]
        while len(self._part.removesuffix(b"\r")) > self._limit:  # the \r may belong to the end of the line
            piece, self._part = self._cut(self._part)
            lines.append(_readable(piece) + _MORE)
        return lines

    def finish(self) -> list[str]:
        """Return the last line, which has no end."""
        rest, self._part = self._part, b""
        return self._pieces(rest)

    def _pieces(self, line: bytes) -> list[str]:
        pieces = []
        line = line.removesuffix(b"\r")
        while len(line) > self._limit:
            piece, line = self._cut(line)
            pieces.append(_readable(piece) + _MORE)
        return [*pieces, _readable(line)] if line else pieces

    def _cut(self, line: bytes) -> tuple[bytes, bytes]:
        end = self._limit
        while end > self._limit - 3 and line[end] & 0xC0 == 0x80:  # within a character of UTF-8
            end -= 1
        return line[:end], line[end:]


class Output:
    """A pipe for the output of a program; ``write`` is called with each line.

    ``end`` is the descriptor for the program. The running event loop reads the pipe until
    `finish`.
    """

    def __init__(self, write: Callable[[str], object], limit: int = 8192) -> None:
        self._source, self.end = os.pipe()
        os.set_blocking(self._source, False)
        self._write = write
        self._lines = Lines(limit)
        self._loop = asyncio.get_running_loop()
        self._is_over: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._source, self._read)

    def close_end(self) -> None:
        """Close this process's copy of the program's end. Idempotent."""
        end, self.end = self.end, -1
        if end >= 0:
            os.close(end)

    async def finish(self) -> None:
        """Read to the end, which comes when no process has the other end open, and close the pipe."""
        self.close_end()
        with suppress(TimeoutError):  # some other process has the other end
            await asyncio.wait_for(asyncio.shield(self._is_over), _PATIENCE)
        self._close()

    def _read(self) -> None:
        try:
            data = os.read(self._source, _READ)
        except BlockingIOError:
            return
        for line in self._lines.feed(data) if data else self._lines.finish():
            self._write(line)
        if not data:
            self._close()

    def _close(self) -> None:
        if not self._is_over.done():
            self._is_over.set_result(None)
            self._loop.remove_reader(self._source)
            os.close(self._source)


def _readable(line: bytes) -> str:
    text = line.decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
