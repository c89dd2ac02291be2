"""Log records in a stream."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tamed.daemon import Damage, Record, RecordReader, encode_record
from tamed.daemon._records import MAX_TEXT

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
RECORDS = st.builds(
    Record,
    severity=st.integers(0, 7),
    time=st.integers(-(10**15), 10**15).map(lambda micros: micros / 1_000_000),
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    text=TEXTS,
)
GARBAGE = st.binary(min_size=1, max_size=60)
WITHOUT_BEGIN = GARBAGE.map(lambda data: data.replace(b"\xff", b"-"))


def read(stream: bytes, cuts: list[int]) -> list[Record | Damage]:
    """Read a stream that comes in pieces, and put pieces of damage together."""
    reader = RecordReader()
    found: list[Record | Damage] = []
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for begin, end in pairwise(edges):
        found += reader.feed(stream[begin:end])
    found += reader.finish()
    joined: list[Record | Damage] = []
    for one in found:
        if joined and isinstance(one, Damage) and isinstance(joined[-1], Damage):
            joined[-1] = Damage(joined[-1].data + one.data)
        else:
            joined.append(one)
    return joined


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.lists(RECORDS, max_size=6), CUTS)
def test_records_come_out_as_they_went_in(records: list[Record], cuts: list[int]) -> None:
    """However the stream is cut into pieces, the same records come out, whole and in order."""
    stream = b"".join(map(encode_record, records))
    got = read(stream, cuts)
    assert [one for one in got if isinstance(one, Damage)] == []
    assert [one._replace(time=0.0) for one in got if isinstance(one, Record)] == [
        one._replace(time=0.0) for one in records
    ]
    for one, other in zip(got, records, strict=True):
        assert isinstance(one, Record)
        assert math.isclose(one.time, other.time, abs_tol=1e-6)


@given(st.lists(RECORDS, min_size=1, max_size=3), GARBAGE, RECORDS, CUTS)
def test_reader_is_in_step_again(
    before: list[Record], garbage: bytes, after: Record, cuts: list[int]
) -> None:
    """Whatever gets into a stream between records, those before and after it come out."""
    stream = b"".join([*map(encode_record, before), garbage, encode_record(after)])
    texts = [one.text for one in read(stream, cuts) if isinstance(one, Record)]
    assert texts[: len(before)] == [one.text for one in before]
    assert texts[-1] == after.text


@given(RECORDS, st.integers(0, 400), RECORDS, CUTS)
def test_cut_record_does_not_swallow_the_next(
    cut: Record, length: int, after: Record, cuts: list[int]
) -> None:
    """When a writer was killed in the middle of a record, its bytes come out, and the next record whole."""
    frame = encode_record(cut)
    piece = frame[: length % len(frame)]
    got = read(piece + encode_record(after), cuts)
    assert [one.text for one in got if isinstance(one, Record)] == [after.text]
    assert b"".join(one.data for one in got if isinstance(one, Damage)) == piece


@given(RECORDS, st.integers(0, 400))
def test_end_within_a_record(record: Record, length: int) -> None:
    """What is left of a record at the end of the stream comes out then, as bytes."""
    frame = encode_record(record)
    piece = frame[: length % len(frame)]
    assert read(piece, []) == ([Damage(piece)] if piece else [])


@given(st.binary(max_size=300), CUTS)
def test_no_byte_is_lost(stream: bytes, cuts: list[int]) -> None:
    """Nothing makes the reader raise, and what is no record comes out byte for byte."""
    got = read(stream, cuts)
    if not any(isinstance(one, Record) for one in got):
        assert b"".join(one.data for one in got if isinstance(one, Damage)) == stream


@given(WITHOUT_BEGIN)
def test_garbage_is_not_held_back(garbage: bytes) -> None:
    """What cannot be the beginning of a record is given at once, so that no garbage fills the memory."""
    assert RecordReader().feed(garbage) == [Damage(garbage)]


def test_long_text_loses_its_middle() -> None:
    """A text that is too long keeps its beginning and its end, and says what is missing."""
    text = "begin" + "x" * 3 * MAX_TEXT + "end"
    reader = RecordReader()
    (record,) = reader.feed(encode_record(Record(3, 0.0, "name", text)))
    assert isinstance(record, Record)
    assert record.text.startswith("beginxxx")
    assert record.text.endswith("xxxend")
    assert f"\n... {2 * MAX_TEXT + 8 + 64} bytes are left out here ...\n" in record.text
    assert len(record.text) <= MAX_TEXT


def test_what_cannot_be_said_is_escaped() -> None:
    """Lone surrogates, as in strange file names, are escaped; times that are none become 0."""
    (record,) = RecordReader().feed(encode_record(Record(6, math.nan, "n\udcff", "\udcff\n")))
    assert record == Record(6, 0.0, "n\\udcff", "\\udcff\n")
    assert RecordReader().feed(encode_record(Record(6, math.inf, "", ""))) == [Record(6, 0.0, "", "")]


def test_lengths_that_are_too_long_are_not_waited_for() -> None:
    """A header that announces more than a record can have is damage, and nothing is waited for."""
    header = b"\xff6 1.000000 4 9999999\n"
    assert RecordReader().feed(header) == [Damage(header)]
    assert RecordReader().feed(b"\xff6 1.000000 999 1\n") == [Damage(b"\xff6 1.000000 999 1\n")]
