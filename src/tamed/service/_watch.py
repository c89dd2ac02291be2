"""Ending a piece of code when a service that it relies on fails."""

import asyncio

from tamed.errors import ServiceFailed

__all__ = ["Watch"]


class Watch:
    """Stands by what the current task does from now on, and cancels it when a failure comes.

    It is what `asyncio.timeout` is for a time: the cancellation is counted, and taken back when what it
    ended is over.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "services live in tasks"
        self._task = task
        self._cancelling_before = task.cancelling()
        self._failure: ServiceFailed | None = None
        self.over = asyncio.Event()

    def failed(self, failure: ServiceFailed) -> None:
        """A failure has come; the first one counts."""
        if self._failure is None:
            self._failure = failure
            self._task.cancel()

    def end(self, error: BaseException | None) -> ServiceFailed | None:
        """It is over, with an error or without; return the failure if nothing else ended it."""
        self.over.set()
        if self._failure is None:
            return None
        also_cancelled = self._task.uncancel() > self._cancelling_before
        if isinstance(error, asyncio.CancelledError):
            return None if also_cancelled else self._failure
        return self._failure if error is None else None
