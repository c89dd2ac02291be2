"""Task helpers that asyncio lacks: waiting until other tasks are done, even when cancelled."""

import asyncio
from collections.abc import Iterable
from typing import Any

from tamed.errors import ServiceMisuse

__all__ = ["Operation", "is_cancelled", "until_done"]


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
