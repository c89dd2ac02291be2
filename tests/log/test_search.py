"""The records in a log file, and the conditions on them."""

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.log.layout import Line, human, json, plain
from tamed.log.search import Entry, EntryReader, Filter, moment_of

TRACE = "Traceback (most recent call last):\n  File ...\nKeyError: 'rhyme'"
LINE = Line(1_700_000_000.125, "ERROR", "verse.metre", "two\nlines", 7, TRACE)


def read(*lines: str) -> list[Entry]:
    """Read lines as they are in a file."""
    return joined(f"{line}\n".encode() for record in lines for line in record.split("\n"))


def joined(pieces: Iterable[bytes]) -> list[Entry]:
    """Read pieces of lines to the end."""
    reader = EntryReader()
    return [*reader.feed(pieces), *reader.flush()]


def test_a_record_is_read_with_its_traceback() -> None:
    """Also what its first line states, and in the shape of JSON."""
    before, entry, after = read(
        plain(LINE._replace(traceback="")), plain(LINE._replace(worker=2)), plain(LINE)
    )
    assert entry.text.count("\n") == 4
    assert (entry.time, entry.level, entry.logger) == (1_700_000_000.125, "ERROR", "verse.metre")
    assert (before.worker, entry.worker, after.worker) == (None, 2, None)
    assert entry.fields["message"] == f"two\nlines\n{TRACE}"


def test_json_is_read_with_its_fields() -> None:
    """A line is a record."""
    (entry,) = read(json(LINE._replace(worker=2, fields={"service": "app/verse", "user": "john"})))
    assert (entry.level, entry.worker, entry.service) == ("ERROR", 2, "app/verse")
    assert (entry.fields["user"], entry.fields["traceback"]) == ("john", TRACE)


def test_the_format_for_people_has_no_date() -> None:
    """So its time is unknown."""
    (entry,) = read(human(LINE))
    assert (entry.time, entry.level, entry.logger) == (None, "ERROR", "verse.metre")


@pytest.mark.parametrize(
    "text",
    ["out of memory", "{", "[" * 10_000, '{"a":' * 2000, "2026-13-41T99:99:99.999+00:00 INFO a: b", ""],
)
def test_lines_of_other_programs_are_records_too(text: str) -> None:
    """They have no time, and what follows is a record of its own."""
    first, second = read(text, plain(LINE))
    assert (first.time, first.text) == (None, text)
    assert second.level == "ERROR"


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_pieces_of_lines_are_joined(data: bytes, cuts: list[int]) -> None:
    """It does not matter where a line is cut."""
    data += b"\n"
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    assert joined(pieces) == joined([line + b"\n" for line in data[:-1].split(b"\n")])


def test_each_condition_holds() -> None:
    """A record without a time has that of the one before it."""
    lines = [
        plain(Line(100.0, "DEBUG", "a.b", "one", worker=1)),
        "what another program wrote",
        plain(Line(200.0, "WARNING", "a", "two", worker=2)),
        plain(Line(300.0, "ERROR", "c", "three", worker=1)),
        json(Line(400.0, "INFO", "d", "four", worker=1, fields={"service": "app/verse/web"})),
    ]

    def numbers(wanted: Filter) -> list[int]:
        found = {entry.text for entry in wanted.apply(read(*lines))}
        return [number for number, line in enumerate(lines) if line in found]

    assert numbers(Filter()) == [0, 1, 2, 3, 4]
    assert numbers(Filter(level=30)) == [2, 3]
    assert numbers(Filter(pattern=re.compile("t[wh]"))) == [1, 2, 3]
    assert numbers(Filter(since=200.0)) == [2, 3, 4]
    assert numbers(Filter(worker=1)) == [0, 3, 4]
    assert numbers(Filter(service="a")) == [0, 2]
    assert numbers(Filter(service="app/verse")) == [4]
    assert numbers(Filter(service="app/ver")) == []
    assert numbers(Filter(level=30, worker=1)) == [3]


def test_a_moment_is_read() -> None:
    """In the format of a log."""
    assert moment_of("1970-01-01T00:00:01.500+00:00") == 1.5
    assert moment_of("yesterday") is None
