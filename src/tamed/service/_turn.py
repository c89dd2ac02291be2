"""Waiting that keeps those who bring services up and down out of each other's way."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tamed.errors import ServiceMisuse

if TYPE_CHECKING:
    from tamed.service._service import Service

__all__ = ["Turn", "Work", "turn", "until_done"]


class Work:
    """Something under way that others may have to wait for."""

    def __init__(self) -> None:
        self.owner = asyncio.current_task()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> "asyncio.Future[None]":
        """Done when it is over; not to be had by its owner, who would wait for ever."""
        _must_not_be_current(self.owner)
        return self._over

    def end(self) -> None:
        """It is over."""
        self._over.set_result(None)


class Turn(Work):
    """Somebody's turn to bring a service up or down."""

    def __init__(self, service: "Service") -> None:
        super().__init__()
        self._service = service
        service._turn_taken = self

    def end(self) -> None:
        """It is the next one's turn."""
        self._service._turn_taken = None
        super().end()


@asynccontextmanager
async def turn(service: "Service") -> AsyncIterator[None]:
    """Wait until nobody else brings the service up or down, and have others wait meanwhile.

    (An `asyncio.Lock` would do, were it not bound to the first event loop in which two met at it.)
    """
    while service._turn_taken is not None:
        await asyncio.wait([service._turn_taken.over])
    mine = Turn(service)
    try:
        yield
    finally:
        mine.end()


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
