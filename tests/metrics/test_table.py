"""A table of metric values: rows, limits, torn and hostile memory."""

import mmap
import os
import struct
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.metrics.table import LONGEST, SIZE, Family, Series, Size, TableReader, TableWriter, create

SMALL = Size(rows=4, text=4096)
COUNTER = Family("jobs", "counter")
HEADER = 64


def series_of(*labels: str, family: Family = COUNTER) -> Series:
    """Return a series of a family with one label for each value."""
    return Series(family, "jobs_total", tuple((f"label{i}", value) for i, value in enumerate(labels)))


@pytest.fixture
def memory() -> Iterator[int]:
    """The descriptor of a table of the usual size."""
    descriptor = create()
    yield descriptor
    os.close(descriptor)


def test_reader_sees_what_a_writer_writes(memory: int) -> None:
    """Rows are read with their series, their explanation and both of their numbers, in order."""
    writer, reader = TableWriter(), TableReader(memory)
    assert reader.read() == []
    writer.move(memory)
    for value, name in enumerate(("a", "b")):
        row = writer.add(series_of(name), "finished jobs")
        writer.cells[2 * row], writer.cells[2 * row + 1] = value, 0.5
    assert reader.read() == [0.0, 0.5, 1.0, 0.5]
    assert reader.series == [series_of("a"), series_of("b")]
    assert reader.explanations == {"jobs": "finished jobs"}


def test_moved_table_has_all_values(memory: int) -> None:
    """A writer that moves to other memory takes its rows along and leaves what it had as it was."""
    writer = TableWriter()
    row = writer.add(series_of("a"), "")
    writer.cells[2 * row] = 7.0
    writer.move(memory)
    writer.move(None)
    writer.cells[2 * row] = 8.0
    writer.add(series_of("b"), "")
    reader = TableReader(memory)
    assert (reader.read(), reader.series) == ([7.0, 0.0], [series_of("a")])


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5, unique=True))
def test_labels_of_any_text_are_read_back(labels: list[tuple[str, str]]) -> None:
    """Label values come back as they were, whatever is in them."""
    memory = create()
    writer, reader = TableWriter(), TableReader(memory)
    writer.move(memory)
    for pair in labels:
        writer.add(series_of(*pair), "")
    reader.read()
    assert reader.series == [series_of(*pair) for pair in labels]
    reader.close()
    os.close(memory)


def test_lone_surrogates_are_replaced(memory: int) -> None:
    """A label that UTF-8 cannot represent is stored with question marks, so that it can be exposed."""
    writer, reader = TableWriter(), TableReader(memory)
    writer.move(memory)
    writer.add(series_of("a\udc80"), "")
    reader.read()
    assert reader.series == [series_of("a?")]


def test_full_table_refuses_rows_and_counts_them() -> None:
    """A table takes no more rows than its size, no record over the limit, and counts what it refuses."""
    memory = create(SMALL)
    writer, reader = TableWriter(SMALL), TableReader(memory, SMALL)
    writer.move(memory)
    rows = [writer.add(series_of(name), "") for name in ("x" * LONGEST, "a", "b", "c", "d")]
    assert rows == [0, 1, 2, 3, 0]
    reader.read()
    assert reader.series == [series_of("a"), series_of("b"), series_of("c")]
    assert reader.refused == 2
    reader.close()
    os.close(memory)


def test_text_of_a_table_is_bounded() -> None:
    """A table whose text is full refuses rows, although it has some left."""
    size = Size(rows=1000, text=1000)
    writer = TableWriter(size)
    rows = [writer.add(series_of("x" * 100 + str(i)), "") for i in range(20)]
    assert 0 < rows.index(0) < 10


def test_writer_cannot_change_the_size(memory: int) -> None:
    """The memory is sealed: no process that has it can shrink it, which would crash its readers."""
    for length in (0, SIZE.length + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(memory, length)


def test_record_that_is_not_whole_is_read_later(memory: int) -> None:
    """A reader stops at a record whose bytes are not all there yet, and takes it when they are."""
    writer, reader = TableWriter(), TableReader(memory)
    writer.move(memory)
    writer.add(series_of("a"), "")
    with mmap.mmap(memory, SIZE.length) as bytes_of:
        last = HEADER + SIZE.rows * 16 + int.from_bytes(bytes_of[8:16], "little") - 1
        whole, bytes_of[last] = bytes_of[last], 0
        assert reader.read() == []
        bytes_of[last] = whole
    assert reader.read() == [0.0, 0.0]


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1), st.booleans())
def test_reader_survives_any_memory(data: bytes, length: int, checked: bool) -> None:
    """Whatever a worker writes into its table, reading it does not fail, and takes only series."""
    memory = create(SMALL)
    if checked:
        data = struct.pack("=II", len(data), zlib.crc32(data)) + data
    os.pwrite(memory, int.from_bytes(b"tamed\0\0\1", "big").to_bytes(8, "little"), 0)
    os.pwrite(memory, length.to_bytes(8, "little"), 8)
    os.pwrite(memory, data, HEADER + SMALL.rows * 16)
    reader = TableReader(memory, SMALL)
    reader.read()
    assert reader.series == []
    reader.close()
    os.close(memory)


@pytest.mark.parametrize(
    "record",
    [
        "[]",
        "1",
        "null",
        '["a"]',
        '["a","b","c",1]',
        "[0,1]",
        '[0,"s","","a"]',
        '[9,"s",""]',
        '[-1,"s",""]',
        '["a\\n","gauge","sum",""]',
        "[" * 2000,
        '{"a":1}',
        '[1e400,"s",""]',
    ],
    ids=lambda record: record[:12].replace("\\", ""),
)
def test_record_of_another_form_is_not_taken(record: str) -> None:
    """A record with a valid checksum that describes no series ends the reading."""
    test_reader_survives_any_memory.hypothesis.inner_test(record.encode(), 4000, True)  # type: ignore[attr-defined]
