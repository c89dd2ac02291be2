"""The last records of the log in memory, for the operations process, and the number of records per level.

The operations process may not read the log file. All that is kept, and so each answer, is bounded, in
records and in bytes.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from tamed.ipc.handoff import Data
from tamed.log.record import Record

__all__ = ["LogTail"]

_LEVELS: Final = {b"2": "CRITICAL", b"3": "ERROR", b"4": "WARNING", b"6": "INFO", b"7": "DEBUG"}
"""The levels by the first character of a head: the severity."""

_MOST: Final = 300  # records
_LONGEST: Final = 4096  # bytes of a record
_SIZE: Final = 256 * 1024  # bytes of all: in JSON six times as much at most, which is less than a message


class _Kept(NamedTuple):
    head: bytes
    text: bytes
    worker: int | None

    @property
    def size(self) -> int:
        return len(self.head) + len(self.text)


class LogTail:
    """Keeps the last records, each with the number of its worker, None for those of the supervisor.

    ``count`` is the number of records that were ever added. A long text loses its middle: a traceback ends
    with its error.
    """

    def __init__(self) -> None:
        self.count = 0
        self.by_level = dict.fromkeys(_LEVELS.values(), 0)
        self._kept: deque[_Kept] = deque()
        self._size = 0

    def add(self, records: Iterable[Record], worker: int | None) -> None:
        """Add records, in order."""
        for record in records:
            kept = _Kept(record.head, _shortened(record.text), worker)
            self._kept.append(kept)
            self._size += kept.size
            self.count += 1
            self.by_level[_LEVELS.get(record.head[:1], "DEBUG")] += 1
        while len(self._kept) > _MOST or self._size > _SIZE:
            self._size -= self._kept.popleft().size

    def resume(self, by_level: dict[str, int]) -> None:
        """Continue the counts of the previous program."""
        for level, count in by_level.items():
            self.by_level[level] += count

    def since(self, count: int) -> list[Data]:
        """Return the kept records after the first ``count``, the oldest first."""
        first = self.count - len(self._kept)
        return [_to_data(kept) for number, kept in enumerate(self._kept, first) if number >= count]


def _shortened(text: bytes) -> bytes:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2 - 16
    return b"%b\n    [...]\n    %b" % (text[:half], text[-half:])


def _to_data(kept: _Kept) -> Data:
    origin = Record(kept.head, kept.text).origin
    return {
        "time": origin.time,
        "severity": origin.severity,
        "logger": origin.name,
        "worker": kept.worker,
        "text": kept.text.decode(errors="replace"),
    }
