"""What the reactor runs on while there is no event loop: before one runs, and after it has ended."""

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["NoLoop"]


class _NoTimer:
    """A timer that is never due."""

    def cancel(self) -> None:
        """Do nothing."""


class NoLoop:
    """The part of an event loop that Twisted's reactor uses, doing nothing.

    The reactor keeps what it reads, writes and times by itself, and hands it to a real loop when there is
    one. Only what other threads call has to be kept here.
    """

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []

    def time(self) -> float:
        """Return a time that does not pass."""
        return 0.0

    def call_at(self, when: float, callback: Callable[[], object]) -> _NoTimer:
        """Return a timer that is never due."""
        return _NoTimer()

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Keep a call for the loop to come."""
        self._calls.append(callback)

    def hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the calls that were kept to a loop."""
        while self._calls:
            loop.call_soon_threadsafe(self._calls.pop(0))

    def _ignore(self, *_: Any) -> None:
        """Do nothing."""

    add_reader = add_writer = remove_reader = remove_writer = _ignore
