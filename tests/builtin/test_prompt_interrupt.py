"""Interrupting code that runs in a thread, and not what the thread does next."""

import random
import threading
from typing import TypeVar

import pytest

from tamed.builtin._prompt.line import InterruptibleCall

T = TypeVar("T")


def interrupted_after(begun: threading.Event, call: InterruptibleCall[T]) -> threading.Thread:
    """Begin a thread that interrupts once something has begun."""

    def watch() -> None:
        begun.wait()
        call.interrupt()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_function_that_never_ends_is_interrupted() -> None:
    """KeyboardInterrupt is raised in a loop without end."""
    begun = threading.Event()

    def forever() -> None:
        begun.set()
        while True:
            pass

    call = InterruptibleCall(forever)
    thread = interrupted_after(begun, call)
    with pytest.raises(KeyboardInterrupt):
        call.run()
    thread.join()


def test_what_is_asked_before_the_beginning() -> None:
    """A function that is to be interrupted before it begins is not called."""
    call = InterruptibleCall(lambda: pytest.fail("called"))
    call.interrupt()
    with pytest.raises(KeyboardInterrupt):
        call.run()


def test_what_comes_too_late() -> None:
    """An interruption after the end does nothing, and what was returned stays."""
    call = InterruptibleCall(lambda: 7)
    assert call.run() == 7
    call.interrupt()


def test_exceptions_pass() -> None:
    """What the function raises is raised."""
    with pytest.raises(ZeroDivisionError):
        InterruptibleCall(lambda: 1 // 0).run()


def test_an_interruption_never_hits_what_comes_next() -> None:
    """Whenever it comes, it is raised by `run` or not at all: a thousand functions that end just then."""
    dice = random.Random(7)
    for _ in range(1000):
        begun = threading.Event()
        turns = dice.randrange(2000)

        def work(begun: threading.Event = begun, turns: int = turns) -> int:
            begun.set()
            return sum(1 for _ in range(turns))

        call = InterruptibleCall(work)
        thread = interrupted_after(begun, call)
        try:
            outcome = call.run()
        except KeyboardInterrupt:
            outcome = None
        # Any left over would be raised here, and fail the test.
        for _ in range(100):
            pass
        thread.join()
        assert outcome in {None, turns}
