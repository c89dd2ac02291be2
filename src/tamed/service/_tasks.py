"""What asyncio lacks for services: failures with a path, cancel scopes, shutdowns, operations, restarts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from tamed.errors import ApplicationFailed, ServiceFailed, ServiceMisuse, TamedError
from tamed.log.logger import own_logger

__all__ = [
    "FailureScope",
    "Operation",
    "Recovery",
    "Shutdown",
    "failure_of",
    "is_cancelled",
    "report",
    "until_done",
]

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


class Restartable(Protocol):
    """The part of a service's lifecycle that its recovery uses."""

    def mark_restarting(self, *, restarting: bool) -> None:
        """Set, for it and all below it, whether it is stopped to be started again."""

    async def stop_to_restart(self) -> None:
        """Wait for a pending operation on the service, and then stop it, as far as it is started."""

    async def start_again(self, is_wanted: Callable[[], bool]) -> bool:
        """Wait for a pending operation, and then start the service if ``is_wanted`` still returns true.

        Returns False if the start failed; the restart policy is applied to that failure.
        """


R = TypeVar("R", bound=Restartable)


class Recovery(Generic[R]):
    """Restarts one service, in one task; a subclass defines the others that are restarted with it.

    A service that fails during a recovery is restarted after it, in the same task.
    """

    def __init__(self, failed: R, delay: float) -> None:
        self._failed = [(failed, delay)]
        self._is_stopping = False
        self._is_given_up = False
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def until_ready(self) -> None:
        """Wait until the recovery may begin."""

    def affected(self, failed: Sequence[R]) -> Sequence[R]:
        """Return the services to restart when ``failed`` have failed, in starting order."""
        return failed[:1]

    def includes(self, service: R) -> bool:
        """Return whether this recovery still has to restart a service."""
        return True

    @property
    def is_over(self) -> bool:
        """Whether the recovery has finished or was cancelled."""
        return self._task.done()

    def add(self, failed: R, delay: float) -> None:
        """Restart another service, after ``delay`` seconds."""
        self._failed.append((failed, delay))

    def give_up(self) -> "asyncio.Future[None]":
        """Cancel the recovery; return a future that is done when it is over.

        Stops in progress are completed, and starts in progress are rolled back.
        """
        if not self._is_given_up:
            self._is_given_up = True
            if not self._is_stopping:
                self._task.cancel()
        return self._task

    async def _work(self) -> None:
        await self.until_ready()
        while self._failed:
            affected = self.affected([each for each, _ in self._failed])
            delay = max(delay for _, delay in self._failed)
            _mark(affected, restarting=True)
            try:
                await self._stop(affected)
                if self._is_given_up:
                    return
                # Next are services that failed in the meantime and were not stopped with the others.
                self._failed = [
                    (each, delay)
                    for each, delay in self._failed
                    if each not in affected and self.includes(each)
                ]
                await asyncio.sleep(delay)
                await self._start(affected)
            finally:
                _mark(affected, restarting=False)

    async def _stop(self, affected: Sequence[R]) -> None:
        self._is_stopping = True
        for each in reversed(affected):
            await each.stop_to_restart()
        self._is_stopping = False

    async def _start(self, affected: Sequence[R]) -> None:
        for each in affected:
            if not await each.start_again(partial(self.includes, each)):
                return
            _mark([each], restarting=False)


def _mark(services: Sequence[Restartable], *, restarting: bool) -> None:
    for each in services:
        each.mark_restarting(restarting=restarting)
