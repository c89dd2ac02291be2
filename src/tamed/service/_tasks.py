"""What asyncio lacks for services: failures with a path, cancel scopes, shutdowns, and pending operations."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from tamed.errors import ApplicationFailed, ServiceFailed, ServiceMisuse, TamedError
from tamed.log.logger import own_logger

__all__ = ["FailureScope", "Operation", "Shutdown", "failure_of", "is_cancelled", "report", "until_done"]

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


def is_cancelled() -> bool:
    """Whether the current task has a request to cancel it (`asyncio.Task.cancelling`)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Operation:
    """A pending operation that other tasks can wait for; the current task owns it."""

    def __init__(self) -> None:
        self.owner = asyncio.current_task()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> "asyncio.Future[None]":
        """A future that is done when the operation is over.

        Raises ServiceMisuse in the task that owns the operation, which would wait for itself.
        """
        _must_not_be_current(self.owner)
        return self._over

    def end(self) -> None:
        """Mark the operation as over."""
        self._over.set_result(None)


async def until_done(futures: "Iterable[asyncio.Future[Any]]", seconds: float | None = None) -> None:
    """Wait until all futures are done, or for ``seconds``; a cancellation is raised only after that."""
    clock = asyncio.get_running_loop().time
    deadline = None if seconds is None else clock() + seconds
    cancelled: asyncio.CancelledError | None = None
    while pending := [future for future in futures if not future.done()]:
        for future in pending:
            _must_not_be_current(future)
        left = None if deadline is None else deadline - clock()
        if left is not None and left <= 0:
            break
        try:
            await asyncio.wait(pending, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _must_not_be_current(owner: object) -> None:
    if owner is asyncio.current_task():
        raise ServiceMisuse(
            "a hook cannot wait until a service is started or stopped",
            "that waits for the hook",
            "start or stop it in another task",
        )
