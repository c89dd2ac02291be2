"""Reading a log that is being written and rotated: its last lines, and then every line that comes.

A file is known by its inode, not by its name, which changes with each rotation: the one that is read may be
``NAME.log.3`` by the time that its end is reached, and then ``NAME.log.2`` is what comes next.
"""

import gzip
import io
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

__all__ = ["LogReader"]

_BLOCK = 1 << 16  # bytes


class LogReader:
    """Reads one log. ``OSError`` comes through, FileNotFoundError above all; to be closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[bytes] = path.open("rb")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def last(self, count: int) -> list[bytes]:
        """Return the last lines, of old files too if need be, and go on behind them."""
        lines = _last_lines(self._stream, count)
        while True:
            number = self._number()
            try:
                older = [] if number is None else self._lines_before(number, count - len(lines))
            except FileNotFoundError:
                continue
            if self._number() == number:  # else there was a rotation meanwhile, as above
                return older + lines

    def more(self) -> Iterator[bytes]:
        """Yield what was written since the last line that was read, as far as it is there now.

        A file that was compressed or removed while it was read is read no further.
        """
        while True:
            number = self._number()
            yield from self._stream  # after the look: nothing is written to a file once it was rotated
            if number == 0:
                return
            try:
                following = self._after(number)
            except FileNotFoundError:
                return  # it is about to be there
            self._stream.close()
            self._stream = following

    def _lines_before(self, number: int, count: int) -> list[bytes]:
        """Return the last lines of the files that are older than the one with a number."""
        lines: list[bytes] = []
        files = self._files()
        for older in sorted(other for other in files if other > number):
            if len(lines) >= count:
                break
            with _open(files[older]) as stream:
                lines = _last_lines(stream, count - len(lines)) + lines
        return lines

    def _number(self) -> int | None:
        """Return the number of the file that is read; None if it has none, because it was removed."""
        status = os.fstat(self._stream.fileno())
        return next((number for number, path in self._files().items() if _is_file(path, status)), None)

    def _after(self, number: int | None) -> IO[bytes]:
        """Open the file that came after the one with this number, which rotations may move meanwhile."""
        while True:
            following = _open(self._files().get(number - 1, self._path) if number else self._path)
            now = self._number()
            if now == number:
                return following
            following.close()
            number = now

    def _files(self) -> dict[int, Path]:
        """Return the log, which has the number 0, and its old files, of which 1 is the youngest."""
        old = {}
        for path in self._path.parent.iterdir():
            number = path.name.removeprefix(f"{self._path.name}.").removesuffix(".gz")
            if path.name.startswith(f"{self._path.name}.") and number.isascii() and number.isdigit():
                old[int(number)] = path
        return {0: self._path, **old}


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _is_file(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except FileNotFoundError:
        return False


def _last_lines(stream: IO[bytes], count: int) -> list[bytes]:
    """Return the last lines of a file; it is read from its end, and stays there."""
    if isinstance(stream, gzip.GzipFile):
        return list(deque(stream, maxlen=count))
    end = begin = stream.seek(0, os.SEEK_END)
    data = b""
    while begin > 0 and data.count(b"\n") <= count:
        size = min(_BLOCK, begin)
        begin = stream.seek(begin - size)
        data = stream.read(size) + data
    stream.seek(end)
    return list(deque(io.BytesIO(data), maxlen=count))
