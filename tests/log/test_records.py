"""Log records in a stream."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tamed.log.record import MAX_NAME, MAX_TEXT, Damage, Record, RecordReader, encode_origin, encode_record

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
HEADS = st.builds(encode_origin, st.integers(0, 7), st.floats(-1e9, 1e9), st.integers(0, 10**7), NAMES)
RECORDS = st.builds(Record, HEADS, TEXTS.map(str.encode))
HEAD = encode_origin(3, 0.0, 7, "name")
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
    assert got == records


@given(st.integers(0, 7), st.floats(-1e9, 1e9), st.integers(0, 10**7), NAMES)
def test_an_origin_can_be_read_back(severity: int, time: float, pid: int, name: str) -> None:
    """All of it, the time to the microsecond."""
    origin = Record(encode_origin(severity, time, pid, name), b"text").origin
    assert origin._replace(time=0.0) == (severity, 0.0, pid, name)
    assert math.isclose(origin.time, time, abs_tol=2e-6)


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
    """Bytes that cannot begin a record are passed on at once, so that they do not fill the memory."""
    assert RecordReader().feed(garbage) == [Damage(garbage)]


def test_long_text_loses_its_middle() -> None:
    """A text that is too long keeps its beginning and its end, and says what is missing."""
    text = b"begin" + b"x" * 3 * MAX_TEXT + b"end"
    reader = RecordReader()
    (record,) = reader.feed(encode_record(Record(HEAD, text)))
    assert isinstance(record, Record)
    assert record.text.startswith(b"beginxxx")
    assert record.text.endswith(b"xxxend")
    assert b"\n... %d bytes are left out here ...\n" % (2 * MAX_TEXT + 8 + 64) in record.text
    assert len(record.text) <= MAX_TEXT


def test_no_character_is_cut_in_two() -> None:
    """The kept beginning and end of a long text are valid UTF-8."""
    for begin in ("", "x", "xx"):
        (record,) = RecordReader().feed(encode_record(Record(HEAD, (begin + "\u20ac" * MAX_TEXT).encode())))
        assert isinstance(record, Record)
        assert begin in record.text.decode()


def test_what_cannot_be_said_is_escaped() -> None:
    """Lone surrogates, as in strange names of loggers, are escaped; times that are none become 0."""
    assert Record(encode_origin(6, math.nan, 7, "n\udcff"), b"").origin == (6, 0.0, 7, "n\\udcff")
    assert Record(encode_origin(6, math.inf, 7, ""), b"").origin == (6, 0.0, 7, "")


def test_a_name_is_cut_where_it_is_too_long() -> None:
    """So the header of a frame has an end."""
    assert len(Record(encode_origin(6, 0.0, 7, "n" * 1000), b"").origin.name) == MAX_NAME


def test_the_end_of_a_record_is_nowhere_else() -> None:
    """Bytes that have one before a text are damage, however they come in pieces."""
    stream = b"\xff6 1 1 na\xfdme\xfetext\xfd"
    assert not [each for each in RecordReader().feed(stream) if isinstance(each, Record)]
    reader = RecordReader()
    assert not [
        each for each in reader.feed(stream[:11]) + reader.feed(stream[11:]) if isinstance(each, Record)
    ]


def test_what_is_too_long_is_not_waited_for() -> None:
    """More than a record can have is damage, so that no garbage fills the memory."""
    frame = b"\xff" + HEAD + b"\xfe" + b"x" * 2 * MAX_TEXT
    assert RecordReader().feed(frame) == [Damage(frame)]
