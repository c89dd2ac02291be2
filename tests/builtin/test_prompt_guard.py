"""Interrupting code that runs in a thread, and not what the thread does next."""

import random
import threading

import pytest

from tamed.builtin._prompt._guard import Guard


def interrupted_after(begun: threading.Event, guard: Guard) -> threading.Thread:
    """Begin a thread that interrupts once something has begun."""

    def watch() -> None:
        begun.wait()
        guard.interrupt()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_function_that_never_ends_is_interrupted() -> None:
    """KeyboardInterrupt is raised in a loop without end."""
    guard, begun = Guard(), threading.Event()

    def forever() -> None:
        begun.set()
        while True:
            pass

    thread = interrupted_after(begun, guard)
    with pytest.raises(KeyboardInterrupt):
        guard.run(forever)
    thread.join()


def test_what_is_asked_before_the_beginning() -> None:
    """A function that is to be interrupted before it begins is not called."""
    guard = Guard()
    guard.interrupt()
    with pytest.raises(KeyboardInterrupt):
        guard.run(lambda: pytest.fail("called"))


def test_what_comes_too_late() -> None:
    """An interruption after the end does nothing, and what was returned stays."""
    guard = Guard()
    assert guard.run(lambda: 7) == 7
    guard.interrupt()


def test_exceptions_pass() -> None:
    """What the function raises is raised."""
    with pytest.raises(ZeroDivisionError):
        Guard().run(lambda: 1 // 0)


def test_an_interruption_never_hits_what_comes_next() -> None:
    """Whenever it comes, it is raised by `run` or not at all: a thousand functions that end just then."""
    dice = random.Random(7)
    for _ in range(1000):
        guard, begun = Guard(), threading.Event()
        thread = interrupted_after(begun, guard)
        turns = dice.randrange(2000)

        def work(begun: threading.Event = begun, turns: int = turns) -> int:
            begun.set()
            return sum(1 for _ in range(turns))

        try:
            outcome = guard.run(work)
        except KeyboardInterrupt:
            outcome = None
        # Any left over would be raised here, and fail the test.
        for _ in range(100):
            pass
        thread.join()
        assert outcome in {None, turns}
