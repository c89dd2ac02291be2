"""What is typed waits in order, but not without bound."""

import asyncio

import pytest

from tamed.builtin._prompt.terminal import Interrupted, Keyboard, TooLong

pytestmark = pytest.mark.anyio


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
