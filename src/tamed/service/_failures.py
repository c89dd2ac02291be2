"""Failures of services: made of what a hook raised, logged, collected on the way down, ending a scope."""

import asyncio
from collections.abc import Awaitable

from tamed.errors import ApplicationFailed, ServiceFailed, TamedError
from tamed.log.logger import own_logger

__all__ = ["FailureScope", "Shutdown", "failure_of", "report"]

log = own_logger("tamed.service")


def failure_of(path: str, phase: str, error: BaseException) -> ServiceFailed:
    """Return the failure of a service for what one of its hooks raised, or let through.

    A cancellation that nobody asked for comes from something the hook had awaited. Let through as such
    it would end whatever task it reached, and be taken for the wish of whoever started that one.
    """
    if isinstance(error, asyncio.CancelledError):
        error = ApplicationFailed("something it waited for was cancelled")
    failure = ServiceFailed(path, phase, error)
    failure.__cause__ = error
    return failure


def report(failure: ServiceFailed, consequence: str = "") -> None:
    """Log a failure that is not raised to anyone, with what is done about it."""
    says_all = isinstance(failure.cause, TamedError)
    text = f"{failure}; {consequence}" if consequence else f"{failure}"
    log.error("%s", text, exc_info=None if says_all else failure.cause)


class Shutdown:
    """A way down, which goes to its end whatever fails: the failures, and a cancellation of the task."""

    def __init__(self) -> None:
        self.failures: list[ServiceFailed] = []
        self._cancelled: asyncio.CancelledError | None = None

    async def through(self, step: Awaitable[None]) -> None:
        """Await a step. Its failure is logged and collected; a cancellation interrupts it and is kept."""
        try:
            await step
        except asyncio.CancelledError as error:
            self._cancelled = error
        except ServiceFailed as failure:
            report(failure)
            self.failures.append(failure)

    def end(self) -> list[ServiceFailed]:
        """Raise the cancellation if there was one; return the failures."""
        if self._cancelled is not None:
            raise self._cancelled
        return self.failures


class FailureScope:
    """A cancel scope around what the current task does from now on, for the failure of a service.

    `fail` cancels it. It is what `asyncio.timeout` is for a time: the cancellation is counted, and taken back
    when what it ended is over.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "services live in tasks"
        self._task = task
        self._cancelling_before = task.cancelling()
        self._failure: ServiceFailed | None = None
        self.over = asyncio.Event()

    def fail(self, failure: ServiceFailed) -> None:
        """Cancel what is inside; the first failure counts."""
        if self._failure is None:
            self._failure = failure
            self._task.cancel()

    def end(self, error: BaseException | None) -> ServiceFailed | None:
        """Leave the scope, with an error or without; return the failure if nothing else ended it."""
        self.over.set()
        if self._failure is None:
            return None
        also_cancelled = self._task.uncancel() > self._cancelling_before
        if isinstance(error, asyncio.CancelledError):
            return None if also_cancelled else self._failure
        return self._failure if error is None else None
