"""Lines out of a stream of bytes."""

from hypothesis import given
from hypothesis import strategies as st

from tamed.log.record import LineReader

LIMIT = 16 * 1024


def read(stream: bytes, size: int) -> list[bytes]:
    """Read a stream that comes in pieces, with all the time in the world between them."""
    reader = LineReader()
    lines = []
    for number, begin in enumerate(range(0, len(stream), size)):
        reader.feed(stream[begin : begin + size], float(number))
        lines += reader.take(number + 0.9)
    return lines + reader.finish()


@given(
    st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"").rstrip(b"\r"))),
    st.integers(1, 50),
)
def test_lines_come_out_as_they_went_in(lines: list[bytes], size: int) -> None:
    """However a stream is cut, its lines come out whole, in order and without their ends."""
    assert read(b"".join(line + b"\n" for line in lines), size) == lines
    assert read(b"".join(line + b"\r\n" for line in lines), size) == lines


def test_last_line_without_an_end() -> None:
    """A line that never ended is given when the stream ends, and not before."""
    reader = LineReader()
    reader.feed(b"whole\nhal", 0.0)
    assert reader.take(9.0) == [b"whole"]
    assert reader.due is None
    reader.feed(b"f", 9.0)
    assert reader.take(99.0) == []
    assert reader.finish() == [b"half"]
    assert reader.finish() == []


def test_lines_that_follow_each_other_stay_together() -> None:
    """Lines without a pause between them are passed on together, after a pause of 50 ms."""
    reader = LineReader()
    reader.feed(b"Traceback\n", 1.0)
    assert reader.due == 1.05
    reader.feed(b"  line\n", 1.04)
    assert reader.take(1.05) == []
    assert reader.due == 1.09
    reader.feed(b"Error\n", 1.08)
    assert reader.take(1.14) == [b"Traceback", b"  line", b"Error"]
    assert reader.due is None
    assert reader.take(9.0) == []


def test_lines_do_not_wait_for_ever() -> None:
    """Lines without any pause are passed on after half a second."""
    reader = LineReader()
    taken: list[bytes] = []
    now = 0.0
    while not taken:
        reader.feed(b"chatter\n", now)
        taken = reader.take(now)
        now += 0.04
    assert 0.5 <= now - 0.04 < 0.6


def test_much_is_given_at_once() -> None:
    """The buffer is bounded: beyond 256 KiB, lines are passed on without a pause."""
    reader = LineReader()
    line = b"x" * 1023 + b"\n"
    reader.feed(line * 255, 0.0)
    assert reader.take(0.01) == []
    reader.feed(line * 5, 0.01)
    assert reader.due is not None
    assert reader.due <= 0.01
    assert len(reader.take(0.01)) == 260


@given(st.integers(0, 3 * LIMIT), st.integers(1000, 40_000))
def test_long_line_is_cut_into_marked_pieces(length: int, size: int) -> None:
    """A line that is too long comes in pieces that are marked, and together they are the line."""
    line = b"0123456789" * (length // 10) + b"end"
    pieces = read(line + b"\nnext\n", size)
    assert pieces.pop() == b"next"
    assert all(piece.endswith(b" [...]") for piece in pieces[:-1])
    assert max(map(len, pieces)) <= LIMIT + 6
    assert b"".join(piece.removesuffix(b" [...]") for piece in pieces) == line


@given(st.integers(0, 8))
def test_characters_are_not_cut(offset: int) -> None:
    """A line is not cut within a character, however many bytes that has."""
    line = ("x" * offset + "aä€😀" * 4000).encode()
    for piece in read(line, 5000):
        piece.decode()


def test_endless_line_is_not_held() -> None:
    """A stream without a newline does not fill the memory."""
    reader = LineReader()
    for _ in range(100):
        reader.feed(b"x" * 10_000, 0.0)
        reader.take(1.0)
    assert sum(map(len, reader.finish())) <= LIMIT
