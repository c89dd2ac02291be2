"""The tasks of services: hooks within their deadlines, bodies, and what asyncio lacks for both.

That is failures with a path, cancel scopes, shutdowns, operations and restarts. Nothing here knows the state
of a service: its lifecycle gets the exceptions of its hooks.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from tamed.errors import ApplicationFailed, DeadlinePassed, ServiceFailed, ServiceMisuse, TamedError
from tamed.log.logger import own_logger
from tamed.service.restart import Restart
from tamed.service.role import Scope

__all__ = [
    "Body",
    "FailureScope",
    "Hooks",
    "Operation",
    "Recovery",
    "Shutdown",
    "current_service",
    "failure_of",
    "finish_hook",
    "is_cancelled",
    "report",
    "until_done",
]

log = own_logger("tamed.service")

current_service: Final[ContextVar["Hooks | None"]] = ContextVar("current_service", default=None)
"""The service whose hook is running, also in tasks and callbacks created by it."""


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
    cause = failure.cause.__cause__ if isinstance(failure.cause, ApplicationFailed) else failure.cause
    text = f"{failure}; {consequence}" if consequence else f"{failure}"
    log.error("%s", text, exc_info=None if isinstance(cause, TamedError) else cause)


class Hooks(Protocol):
    """The part of a `Service` that its lifecycle uses."""

    name: str
    restart: Restart
    only: Scope
    start_timeout: float | None
    stop_timeout: float | None

    @property
    def full_name(self) -> str: ...

    def default_name(self) -> str: ...

    async def prepare(self) -> None: ...

    async def start(self) -> None: ...

    async def run(self) -> None: ...

    async def stop(self) -> None: ...

    async def release(self) -> None: ...


async def finish_hook(hook: Coroutine[Any, Any, None], awaited: object, seconds: float | None) -> None:
    """Run a hook that waits for ``awaited`` to its end, or cancel it after ``seconds`` (None: no deadline).

    A hook that catches its cancellation and continues is awaited. Raises DeadlinePassed if the hook was
    cancelled at its deadline; other exceptions of the hook are raised unchanged.
    """
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            await _resume(hook, awaited)
    except TimeoutError:
        if seconds is None or not deadline.expired():
            raise
        raise DeadlinePassed(seconds) from None


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], awaited: object) -> Generator[Any, Any, None]:
    """Continue a coroutine that is suspended on ``awaited``, as ``await`` would (PEP 380)."""
    while True:
        try:
            try:
                sent = yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(sent)
        except StopIteration:
            return


class Body:
    """One execution of a service's ``run`` hook, in a task of its own.

    ``ended`` is called when the hook ends by itself, with its failure or None.
    """

    def __init__(self, service: Hooks, ended: Callable[[ServiceFailed | None], object]) -> None:
        self._service = service
        self._path = service.full_name
        self._ended = ended
        self._is_ending = False
        self._task = asyncio.get_running_loop().create_task(self._live(), name=self._path)

    async def end(self, seconds: float | None) -> None:
        """Cancel the hook and wait for its end. Raises ServiceFailed if the hook raises.

        A hook that has not ended after ``seconds`` (None: no deadline) catches its cancellation. It is
        abandoned, because the other services must be stopped anyway, and ServiceFailed is raised.
        """
        self._is_ending = True
        if self._task is asyncio.current_task():  # the hook itself requested this, and continues afterwards
            self._task.add_done_callback(_report_late)
            return
        self._task.cancel()
        await until_done([self._task], seconds)
        if not self._task.done():
            assert seconds is not None
            self._task.add_done_callback(_report_late)
            raise failure_of(self._path, "run", DeadlinePassed(seconds))
        if not self._task.cancelled() and (failure := self._task.result()) is not None:
            raise failure

    async def _live(self) -> ServiceFailed | None:
        """Run the hook; return its failure if `end` must raise it."""
        failure = None
        current_service.set(self._service)
        try:
            await self._service.run()
        except asyncio.CancelledError as error:
            if self._is_ending:
                raise
            failure = failure_of(self._path, "run", error)
        except (Exception, SystemExit) as error:
            failure = failure_of(self._path, "run", error)
        if self._is_ending:
            return failure
        self._ended(failure)
        return None


def _report_late(task: "asyncio.Task[ServiceFailed | None]") -> None:
    if not task.cancelled() and (failure := task.result()) is not None:
        report(failure)


class Shutdown:
    """Collects the failures and a cancellation during a shutdown, so that none of them interrupts it.

    Each step of it is a ``with`` block. A failure of the step is logged and collected, and a cancellation is
    kept: it interrupts this step only.
    """

    def __init__(self) -> None:
        self.failures: list[ServiceFailed] = []
        self._cancelled: asyncio.CancelledError | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether a step was interrupted by a cancellation."""
        return self._cancelled is not None

    def __enter__(self) -> None:
        """Begin a step."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, asyncio.CancelledError):
            self._cancelled = error
        elif isinstance(error, ServiceFailed):
            report(error)
            self.failures.append(error)
        else:
            return False
        return True

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
    """The part of a `Lifecycle` that its recovery uses."""

    def mark_restarting(self, *, restarting: bool) -> None: ...

    async def stop_to_restart(self) -> None: ...

    async def start_again(self, is_wanted: Callable[[], bool]) -> bool: ...


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
