"""Appending records to an open file so that only whole ones stay in it."""

import os
from collections.abc import Sequence

__all__ = ["Appender"]


class Appender:
    """The one writer of a file that is open for appending.

    A write to a full disk may stop in the middle of a record. The file is then cut back to the end of the
    last whole one; where even that fails, it is done before the next write. The length is asked of the
    kernel each time, so others may cut the file to nothing (``copytruncate`` of logrotate). It is asked by
    seeking, which has no effect on a file that is open for appending and takes a fifth of an ``fstat``.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._end: int | None = None  # of the last whole record, while there is a piece of one behind it

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._descriptor

    def size(self) -> int:
        """Return how many bytes the file has."""
        return os.lseek(self._descriptor, 0, os.SEEK_END)

    def append(self, records: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Append records; return how many of the first ones are in the file, and what stopped it."""
        try:
            self._mend()
        except OSError as error:
            return 0, error
        written, failure = _write(self._descriptor, b"".join(records))
        if failure is None:
            return len(records), None
        count, length = _whole(records, written)
        if written > length:
            self._end = os.lseek(self._descriptor, 0, os.SEEK_CUR) - (written - length)
            self._try_to_mend()
        return count, failure

    def close(self) -> None:
        """Close the file; what is appended after that is refused."""
        self._try_to_mend()
        os.close(self._descriptor)
        self._descriptor = -1

    def _mend(self) -> None:
        if self._end is None:
            return
        if self.size() > self._end:
            os.ftruncate(self._descriptor, self._end)
        self._end = None

    def _try_to_mend(self) -> None:
        try:
            self._mend()
        except OSError:
            return


def _write(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """Write all of it, or what there is room for; a short write says why only when it is tried again."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:] if written else data)
    except OSError as error:
        return written, error
    return written, None


def _whole(records: Sequence[bytes], written: int) -> tuple[int, int]:
    """Return how many records are whole in the first ``written`` bytes, which are not all, and their size."""
    count = length = 0
    while length + len(records[count]) <= written:
        length += len(records[count])
        count += 1
    return count, length
