"""What is typed: lines out of bytes, whatever the pieces, which wait in order, but not without bound."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.builtin._prompt.terminal import Interrupted, Keyboard, Lines, TooLong

pytestmark = pytest.mark.anyio


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


async def test_in_order() -> None:
    """Lines and what else is typed come in order, and then the end."""
    keyboard = Keyboard(lambda _: None)
    keyboard.line("a")
    keyboard.too_long()
    keyboard.line("b")
    keyboard.end()
    assert await keyboard.next(None) == "a"
    with pytest.raises(TooLong):
        await keyboard.next(None)
    assert await keyboard.next(None) == "b"
    for _ in range(2):
        with pytest.raises(EOFError):
            await keyboard.next(None)


async def test_waiting() -> None:
    """A line that comes later is waited for, but not for ever."""
    keyboard = Keyboard(lambda _: None)
    asyncio.get_running_loop().call_soon(keyboard.line, "a")
    assert await keyboard.next(30) == "a"
    with pytest.raises(TimeoutError):
        await keyboard.next(0.01)


async def test_an_interruption_forgets_what_was_typed_ahead() -> None:
    """Ctrl-C drops the lines before it."""
    keyboard = Keyboard(lambda _: None)
    keyboard.line("a")
    keyboard.interrupt()
    keyboard.line("b")
    with pytest.raises(Interrupted):
        await keyboard.next(None)
    assert await keyboard.next(None) == "b"


async def test_an_interruption_of_what_runs() -> None:
    """While something runs that is told, and nothing is left for the next line."""
    keyboard = Keyboard(lambda _: None)
    told: list[str] = []
    keyboard.on_interrupt = lambda: told.append("interrupted")
    keyboard.interrupt()
    keyboard.line("a")
    assert await keyboard.next(None) == "a"
    assert told == ["interrupted"]


async def test_typing_ahead_has_a_limit() -> None:
    """With many lines that wait the connection is not read, until there are fewer, or Ctrl-C."""
    reading: list[bool] = []
    keyboard = Keyboard(reading.append)
    for _ in range(64):
        keyboard.line("x")
    assert reading == [False]
    for _ in range(33):
        await keyboard.next(None)
    assert reading == [False, True]
    keyboard.on_interrupt = lambda: None
    for _ in range(64):
        keyboard.line("x")
    keyboard.interrupt()
    assert reading == [False, True, False, True]
