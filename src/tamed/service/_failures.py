"""Failures of services: creating them from exceptions, logging them, collecting them, and cancel scopes."""

import asyncio
from collections.abc import Awaitable

from tamed.errors import ApplicationFailed, ServiceFailed, TamedError
from tamed.log.logger import own_logger

__all__ = ["FailureScope", "Shutdown", "failure_of", "report"]

log = own_logger("tamed.service")


def failure_of(path: str, phase: str, error: BaseException) -> ServiceFailed:
    """Return the failure of a service for an exception that left one of its hooks.

    A CancelledError without a request to cancel comes from something that the hook awaited. It is replaced:
    otherwise it would end the task that it reaches, and that task's caller would see a normal cancellation.
    """
    if isinstance(error, asyncio.CancelledError):
        error = ApplicationFailed("a task or future that it awaited was cancelled")
    failure = ServiceFailed(path, phase, error)
    failure.__cause__ = error
    return failure


def report(failure: ServiceFailed, consequence: str = "") -> None:
    """Log a failure that is not raised, with its consequence."""
    needs_no_traceback = isinstance(failure.cause, TamedError)
    text = f"{failure}; {consequence}" if consequence else f"{failure}"
    log.error("%s", text, exc_info=None if needs_no_traceback else failure.cause)


class Shutdown:
    """Collects the failures and a cancellation during a shutdown, so that none of them interrupts it."""

    def __init__(self) -> None:
        self.failures: list[ServiceFailed] = []
        self._cancelled: asyncio.CancelledError | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether a step was interrupted by a cancellation."""
        return self._cancelled is not None

    async def through(self, step: Awaitable[None]) -> None:
        """Await a step. Log and collect its failure; keep a cancellation, which interrupts this step only."""
        try:
            await step
        except asyncio.CancelledError as error:
            self._cancelled = error
        except ServiceFailed as failure:
            report(failure)
            self.failures.append(failure)

    def end(self) -> list[ServiceFailed]:
        """Raise the kept cancellation, if any; return the failures."""
        if self._cancelled is not None:
            raise self._cancelled
        return self.failures


class FailureScope:
    """A cancel scope around the current task, from now on: `fail` cancels it, `end` returns the failure.

    It works as `asyncio.timeout` does: it counts its cancellation, and `end` calls `asyncio.Task.uncancel`.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "services live in tasks"
        self._task = task
        self._cancelling_before = task.cancelling()
        self._failure: ServiceFailed | None = None
        self.over = asyncio.Event()

    def fail(self, failure: ServiceFailed) -> None:
        """Cancel the task. Only the first failure has an effect."""
        if self._failure is None:
            self._failure = failure
            self._task.cancel()

    def end(self, error: BaseException | None) -> ServiceFailed | None:
        """Leave the scope, with or without an error; return the failure if nothing else ended the scope."""
        self.over.set()
        if self._failure is None:
            return None
        also_cancelled = self._task.uncancel() > self._cancelling_before
        if isinstance(error, asyncio.CancelledError):
            return None if also_cancelled else self._failure
        return self._failure if error is None else None
