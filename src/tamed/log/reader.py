"""Reading a log that is being written and rotated: its last lines, and then every new line.

A file is identified by its inode, not by its name, which changes with each rotation: the file that is being
read may be ``NAME.log.3`` when its end is reached, and then ``NAME.log.2`` is the next one.

The daemon's user can replace a log with anything. So only regular files are read, and root reads only files
of that user (not a link or a path to a file of root). A damaged gzip file, and files that are renamed all the
time, are an OSError. Neither a long line nor a small file that unpacks to a large one takes much memory.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections import deque
from contextlib import ExitStack, suppress

from tamed._os.trust import TO_READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["LogReader"]

_BLOCK = 1 << 16  # bytes
_LONGEST = 1 << 20  # bytes of a line
_LOOKS = 100  # attempts to list the files without a rename during it; more is not a rotation


class LogReader:
    """Reads one log. All methods may raise ``OSError``, such as FileNotFoundError. Close it after use.

    With an ``owner`` only files of that user are read; others raise PermissionError. A line that is
    longer than a mebibyte is returned in pieces.
    """

    def __init__(self, path: Path, owner: int | None = None) -> None:
        self._path = path
        self._owner = owner
        self._stream: io.BufferedIOBase = _open(path, owner)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def last(self, count: int) -> list[bytes]:
        """Return the last ``count`` lines, from old files too if necessary; `more` continues after them."""
        lines = _last_lines(self._stream, count)
        return self._at_rest(lambda files, _: self._lines_before(files, count - len(lines))) + lines

    def every(self, since: float | None = None) -> Iterator[bytes]:
        """Yield all lines, those of the old files first; `more` continues after them.

        Old files whose last line was written before ``since``, in seconds since the epoch, are left out.
        """

        def opened(files: dict[int, _File], undo: ExitStack) -> list[io.BufferedIOBase]:
            oldest_first = (files[each] for each in sorted(self._older(files), reverse=True))
            return [
                undo.enter_context(_open(each.path, self._owner))
                for each in oldest_first
                if since is None or each.written >= since
            ]

        with ExitStack() as streams:
            for stream in map(streams.enter_context, self._at_rest(opened)):
                yield from _lines(stream)
        self._stream.seek(0)
        yield from _lines(self._stream)

    def more(self) -> Iterator[bytes]:
        """Yield the lines that were written since the last line that was read, up to now.

        The rest of a file that was compressed or removed since then is not read. A file that was truncated
        is read again from its beginning.
        """
        while True:
            following = self._following()
            self._rewind_truncated()
            yield from _lines(self._stream)  # after `_following`: a rotated file gets no more lines
            if following is None:
                return
            self._stream.close()
            self._stream = following

    def _rewind_truncated(self) -> None:
        if not _is_compressed(self._stream):
            size = os.fstat(self._stream.fileno()).st_size
            if size < self._stream.tell():
                self._stream.seek(0)

    def _lines_before(self, files: dict[int, _File], count: int) -> list[bytes]:
        """Return the last lines of the files that are older than the open one."""
        lines: list[bytes] = []
        for older in sorted(self._older(files)):
            if len(lines) >= count:
                break
            with _open(files[older].path, self._owner) as stream:
                lines = _last_lines(stream, count - len(lines)) + lines
        return lines

    def _following(self) -> io.BufferedIOBase | None:
        """Open the file that follows the open one; None if that is the youngest."""

        def opened(files: dict[int, _File], undo: ExitStack) -> io.BufferedIOBase | None:
            number = self._next_number(files)
            return None if number is None else undo.enter_context(_open(files[number].path, self._owner))

        return self._at_rest(opened)

    def _at_rest(self, read: Callable[[dict[int, _File], ExitStack], T]) -> T:
        """Return what ``read`` returns for the files, which nobody has renamed meanwhile.

        A rotation renames one file after the other, so a listing during a rotation can be inconsistent. If
        two listings are the same, no file was renamed between them. Otherwise ``read`` is called again, and
        what it has entered into its stack is closed.
        """
        for _ in range(_LOOKS):
            files = self._files()
            with ExitStack() as undo, suppress(FileNotFoundError):
                found = read(files, undo)
                if self._are_still(files):
                    undo.pop_all()
                    return found
        raise OSError(errno.EBUSY, "its old files are being renamed continuously")

    def _older(self, files: dict[int, _File]) -> list[int]:
        """Return the numbers of the files that are older than the open one; none if that does not exist."""
        number = self._number(files)
        return [] if number is None else [other for other in files if other > number]

    def _next_number(self, files: dict[int, _File]) -> int | None:
        number = self._number(files)
        if number is None:  # it was removed, compressed or moved; those after it are not compressed yet
            written = os.fstat(self._stream.fileno()).st_mtime
            return max(
                (other for other, file in files.items() if file.may_follow(written, other)), default=None
            )
        return max((other for other in files if other < number), default=None)

    def _number(self, files: dict[int, _File]) -> int | None:
        """Return the number of the open file; None if it does not exist any more."""
        inode = _inode(os.fstat(self._stream.fileno()))
        return next((number for number, file in files.items() if file.inode == inode), None)

    def _files(self) -> dict[int, _File]:
        """Return the log, with the number 0, and its old files by number, of which 1 is the youngest."""
        paths = {0: self._path}
        for path in self._path.parent.iterdir():
            number = path.name.removeprefix(f"{self._path.name}.").removesuffix(".gz")
            if path.name.startswith(f"{self._path.name}.") and number.isascii() and number.isdigit():
                paths[int(number)] = path
        files = {}
        for place, path in paths.items():
            with suppress(FileNotFoundError):
                status = path.lstat()
                if not _why_not(status, self._owner):
                    files[place] = _File(path, status)
        return files

    def _are_still(self, files: dict[int, _File]) -> bool:
        """Return whether each file still has the same name, so that there was no rotation in between."""
        now = self._files()
        return now.keys() == files.keys() and all(now[each].inode == files[each].inode for each in now)


class _File:
    def __init__(self, path: Path, status: os.stat_result) -> None:
        self.path = path
        self.inode = _inode(status)
        self.written = status.st_mtime
        self.is_compressed = path.suffix == ".gz"

    def may_follow(self, written: float, number: int) -> bool:
        """Return whether this file, with its number, may be younger than one that was written then."""
        return not self.is_compressed and (number == 0 or self.written >= written)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _open(path: Path, owner: int | None) -> io.BufferedIOBase:
    descriptor = os.open(path, TO_READ)
    try:
        if why := _why_not(os.fstat(descriptor), owner):
            raise PermissionError(errno.EPERM, why)
        if path.suffix == ".gz":  # by path: gzip closes only files that it has opened itself
            from gzip import GzipFile  # lazy import: most logs are not compressed

            return GzipFile(f"/proc/self/fd/{descriptor}")
        return os.fdopen(os.dup(descriptor), "rb")
    finally:
        os.close(descriptor)


def _why_not(status: os.stat_result, owner: int | None) -> str:
    """Return the reason why a file is not read; empty if it is read."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if owner is not None and status.st_uid != owner:
        return f"it belongs to user {status.st_uid}, and the daemon runs as user {owner}"
    return ""


def _lines(stream: io.BufferedIOBase) -> Iterator[bytes]:
    if not _is_compressed(stream):
        while line := stream.readline(_LONGEST):
            yield line
        return
    import gzip  # lazy import, as above
    import zlib

    try:
        while line := stream.readline(_LONGEST):
            yield line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise OSError(errno.EBADMSG, f"a compressed old file is damaged: {error}") from error


def _is_compressed(stream: io.BufferedIOBase) -> bool:
    return not isinstance(stream, io.BufferedReader | io.BytesIO)


def _last_lines(stream: io.BufferedIOBase, count: int) -> list[bytes]:
    """Return the last lines of a file, read backwards; leave the position at its end."""
    if _is_compressed(stream):
        return list(deque(_lines(stream), maxlen=count))
    end = begin = stream.seek(0, os.SEEK_END)
    data = b""
    while begin > 0 and data.count(b"\n") <= count and len(data) < max(count, 1) * _LONGEST:
        size = min(max(_BLOCK, len(data)), begin)
        begin = stream.seek(begin - size)
        data = stream.read(size) + data
    stream.seek(end)
    return list(deque(_lines(io.BytesIO(data)), maxlen=count))
