"""A table of metric values in shared memory: one process writes it, others read it at any time.

The supervisor creates the memory of a worker's table, a memfd(2), so the values survive any end of the
worker. An update is a store into memory. The size is fixed and sealed: no writer can make a reader fail.

The memory has three parts. The header is 64-bit numbers. The cells are pairs of 64-bit floats: the value of a
row, and a second number that belongs to it (see `Cells`). The text describes the rows, one record after
another: a series for each row, and before the first series of a family the family. A record is its length,
its checksum and JSON. Records are only appended. The writer counts a record's bytes in the header after it
has written them, and a reader stops at a record whose checksum is wrong, because it is not visible yet.

All numbers are read and written through typed memory views, which copy eight aligned bytes in one step, so no
reader sees half of a value. `struct.pack_into` does not: it copies byte by byte, and readers did see that.
"""

import fcntl
import json
import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

__all__ = ["LONGEST", "SIZE", "Cells", "Family", "Series", "Size", "TableReader", "TableWriter", "create"]

Cells = Sequence[float]
"""The cells of a table's rows: for each row its value, and then a second number.

The second number is, for a ``mostrecent`` gauge, the time of the last change (in seconds since the epoch),
and for a sum, the rounding error of the value.
"""

LONGEST: Final = 4096
"""The longest record, in bytes. A series whose labels need more gets no row."""

_MAGIC: Final = int.from_bytes(b"tamed\0\0\1", "big")
_HEADER: Final = 64  # bytes: the magic number, the bytes of text, the refused series
_TEXT_LENGTH, _REFUSED = 1, 2  # indexes of numbers in the header
_RECORD: Final = struct.Struct("=II")
_PAIR: Final = 16  # bytes of a row's cells
_HELP: Final = 1000  # characters
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Size(NamedTuple):
    """The size of a table: its rows, and the bytes of text that describe them.

    Unused memory is not allocated.
    """

    rows: int
    text: int

    @property
    def length(self) -> int:
        """The length of the whole table, in bytes."""
        return _HEADER + self.rows * _PAIR + self.text


SIZE: Final = Size(rows=16_384, text=4 << 20)
"""The size of a worker's table."""


class Family(NamedTuple):
    """A metric: its kind is counter, gauge, histogram, summary or info; a gauge has a mode of merging."""

    name: str
    kind: str
    mode: str = ""


class Series(NamedTuple):
    """A series of a family, with the name of its sample. ``slot`` is the number of its worker.

    The slot is empty if the series is not specific to one worker.
    """

    family: Family
    sample: str
    labels: tuple[tuple[str, str], ...]
    slot: str = ""


def create(size: Size = SIZE) -> int:
    """Create the memory of a table; return its descriptor. Raises OSError if there is no memory."""
    descriptor = os.memfd_create("tamed-metrics", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size.length)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _memory(descriptor: int | None, size: Size) -> mmap.mmap:
    """Map the memory of a descriptor; None: private memory."""
    if descriptor is None:
        return mmap.mmap(-1, size.length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(descriptor, size.length)


class _Views:
    """The typed views of a table's memory."""

    def __init__(self, memory: mmap.mmap, size: Size) -> None:
        self.memory = memory
        self._whole = memoryview(memory)
        cells = _HEADER + size.rows * _PAIR
        self.header = self._whole[:_HEADER].cast("Q")
        self.cells = self._whole[_HEADER:cells].cast("d")
        self.text = self._whole[cells:]

    def close(self) -> None:
        for view in (self.header, self.cells, self.text, self._whole):
            view.release()
        self.memory.close()


class TableWriter:
    """Writes a table. It begins in private memory; `move` continues in shared memory.

    ``cells`` is for updates of a row's value at twice the row's number, from any thread. Row 0 has no series:
    it receives the updates of refused series.
    """

    def __init__(self, size: Size = SIZE) -> None:
        self._size = size
        self._rows = 1
        self._families: dict[Family, int] = {}
        self._views = _Views(_memory(None, size), size)
        self._views.header[0] = _MAGIC
        self.is_shared = False
        self.cells = self._views.cells

    def move(self, descriptor: int | None) -> None:
        """Continue in the memory of a descriptor, with all values so far; None: in private memory.

        No other thread may update a value during the call. The previous memory is not changed.
        """
        views, former = _Views(_memory(descriptor, self._size), self._size), self._views
        used = former.header[_TEXT_LENGTH]
        views.cells[: 2 * self._rows] = former.cells[: 2 * self._rows]
        views.text[:used] = former.text[:used]
        views.header[_REFUSED] = former.header[_REFUSED]
        views.header[_TEXT_LENGTH] = used
        views.header[0] = _MAGIC
        self.is_shared = descriptor is not None
        self._views, self.cells = views, views.cells
        former.close()

    def add(self, series: Series, explanation: str) -> int:
        """Append a row for a series, with the value 0; return its number, or 0 if the table is full.

        ``explanation`` is the family's help text. Only one thread at a time may call this.
        """
        if self._rows == self._size.rows:
            return self.refuse()
        family = self._families.get(series.family)
        if family is None:
            if not self._append([*series.family, explanation[:_HELP]]):
                return self.refuse()
            family = self._families[series.family] = len(self._families)
        flat = [text for label in series.labels for text in label]
        if not self._append([family, series.sample, series.slot, *flat]):
            return self.refuse()
        self._rows += 1
        return self._rows - 1

    def refuse(self, count: int = 1) -> int:
        """Count series that get no row; return 0."""
        self._views.header[_REFUSED] += count
        return 0

    def _append(self, record: list[Any]) -> bool:
        """Append a record; return whether there was space for it."""
        # Lone surrogates are replaced: they could not be exposed.
        texts = [each.encode(errors="replace").decode() if isinstance(each, str) else each for each in record]
        data = json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode()
        used = self._views.header[_TEXT_LENGTH]
        end = used + _RECORD.size + len(data)
        if len(data) > LONGEST or end > self._size.text:
            return False
        self._views.text[used:end] = _RECORD.pack(len(data), zlib.crc32(data)) + data
        self._views.header[_TEXT_LENGTH] = end
        return True


class TableReader:
    """Reads a table that another process writes, which may contain anything: reading it is safe.

    ``series`` are those of the rows, from row 1 on. ``explanations`` are the help texts of the families, by
    name. Readers with the same ``known`` series share the objects of equal series.
    """

    def __init__(self, descriptor: int, size: Size = SIZE, known: dict[Series, Series] | None = None) -> None:
        memory = mmap.mmap(descriptor, size.length, access=mmap.ACCESS_READ)
        self._views = _Views(memory, size)
        self._size = size
        self._known = {} if known is None else known
        self._families: list[Family] = []
        self._read = 0  # bytes of text
        self.series: list[Series] = []
        self.explanations: dict[str, str] = {}

    def close(self) -> None:
        """Unmap the memory."""
        self._views.close()

    @property
    def refused(self) -> int:
        """The number of series that got no row."""
        return int(self._views.header[_REFUSED]) if self._views.header[0] == _MAGIC else 0

    def read(self) -> Cells:
        """Read new series, and return the cells of all ``series``."""
        if self._views.header[0] == _MAGIC:
            end = min(self._views.header[_TEXT_LENGTH], self._size.text)
            while self._read < end and (after := self._read_record(end)):
                self._read = after
        return self._views.cells[2 : 2 * len(self.series) + 2].tolist()

    def _read_record(self, end: int) -> int:
        """Read a record; return the offset of its end, or 0 if there is no valid record."""
        begin = self._read + _RECORD.size
        if begin > end:
            return 0
        length: int
        checksum: int
        length, checksum = _RECORD.unpack(self._views.text[self._read : begin])
        data = bytes(self._views.text[begin : begin + length]) if length <= LONGEST else b""
        if len(data) != length or begin + length > end or zlib.crc32(data) != checksum:
            return 0
        try:
            self._take(json.loads(data))
        except (ValueError, TypeError, IndexError, RecursionError):  # the worker's application wrote it
            return 0
        return begin + length

    def _take(self, record: Any) -> None:
        head, *texts = record
        if not all(isinstance(each, str) for each in texts):
            raise ValueError("a text")
        if isinstance(head, str):
            kind, mode, explanation = texts
            if not head.isprintable():
                raise ValueError("a name")
            self._families.append(Family(head, kind, mode))
            self.explanations[head] = explanation
            return
        sample, slot, *labels = texts
        names = labels[::2]
        if head < 0 or not all(name.isprintable() for name in (sample, slot, *names)):
            raise ValueError("a series")
        if len(self.series) + 1 < self._size.rows:
            pairs = tuple(zip(names, labels[1::2], strict=True))
            series = Series(self._families[head], sample, pairs, slot)
            self.series.append(self._known.setdefault(series, series))
