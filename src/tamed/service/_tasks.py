"""What services need of tasks and asyncio does not have: a scope that a failure ends, and waiting."""

import asyncio
from collections.abc import Iterable
from typing import Any

from tamed.errors import ServiceFailed, ServiceMisuse

__all__ = ["FailureScope", "Operation", "is_cancelled", "until_done"]


def is_cancelled() -> bool:
    """Whether somebody has cancelled the current task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


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


class Operation:
    """Something under way that others may have to wait for; it belongs to the current task."""

    def __init__(self) -> None:
        self.owner = asyncio.current_task()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> "asyncio.Future[None]":
        """Done when it is over. Raises ServiceMisuse for its owner, who would wait for ever."""
        _must_not_be_current(self.owner)
        return self._over

    def end(self) -> None:
        """It is over."""
        self._over.set_result(None)


async def until_done(futures: "Iterable[asyncio.Future[Any]]", seconds: float | None = None) -> None:
    """Wait until all are done, or the seconds are over; if this is cancelled, it ends so, but not before."""
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
