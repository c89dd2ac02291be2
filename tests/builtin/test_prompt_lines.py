"""Lines out of bytes, whatever the pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.builtin._prompt.terminal import Lines


def lines_of(*pieces: bytes, longest: int = 100) -> list[str]:
    """Feed pieces; return the lines, and ``LONG`` for each that was too long."""
    found: list[str] = []
    lines = Lines(found.append, lambda: found.append("LONG"), longest)
    for piece in pieces:
        lines.feed(piece)
    lines.finish()
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\0c\rd", ["a", "b", "c", "d"]),
        (b"\r\n\r\n", ["", ""]),
        (b"\r\r\n", ["", ""]),
        ("½\n".encode(), ["½"]),
        (b"\xff\n", ["\N{REPLACEMENT CHARACTER}"]),
        (b"x" * 100 + b"\n", ["x" * 100]),
        (b"x" * 101 + b"\ny", ["LONG", "y"]),
    ],
)
def test_ends_of_lines(data: bytes, expected: list[str]) -> None:
    """Every way to end a line ends one; the last needs no end."""
    assert lines_of(data) == expected


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\0", "½".encode(), b"xyz"])), st.data())
def test_pieces_make_no_difference(parts: list[bytes], data: st.DataObject) -> None:
    """However the bytes come, the lines are the same."""
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    pieces = [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]
    assert lines_of(*pieces, longest=5) == lines_of(whole, longest=5)


@given(st.lists(st.binary(max_size=50)))
def test_no_line_is_longer_than_allowed(pieces: list[bytes]) -> None:
    """Nothing longer comes out, and nothing is raised."""
    assert all(len(line) <= 10 for line in lines_of(*pieces, longest=10))
