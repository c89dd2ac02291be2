"""Restarting services: those that failed, and those that are restarted with them, in one task.

What fails in the middle of a recovery is seen to after it, and not at once.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

__all__ = ["Recovery", "Restartable"]


class Restartable(Protocol):
    """The lifecycle of a service, as its recovery sees it."""

    def mark_restarting(self, *, restarting: bool) -> None:
        """Say, for it and all below it, whether it is stopped to be started again."""

    async def stop_to_restart(self) -> None:
        """Stop it, as far as it is started, when nobody else brings it up or down."""

    async def start_again(self, is_wanted: Callable[[], bool]) -> bool:
        """Start it if that is still wanted when nobody else brings it up or down; return whether all is well.

        A failure of the start is taken as one of the service.
        """


R = TypeVar("R", bound=Restartable)


class Recovery(Generic[R]):
    """Restarts a service by itself; a subclass says with which others."""

    def __init__(self, failed: R, delay: float) -> None:
        self._failed = [(failed, delay)]
        self._is_stopping = False
        self._is_given_up = False
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def until_ready(self) -> None:
        """Wait until it may begin."""

    def affected(self, failed: Sequence[R]) -> Sequence[R]:
        """Return those that are restarted when some have failed, in starting order."""
        return failed[:1]

    def includes(self, service: R) -> bool:
        """Return whether a service is still this recovery's affair."""
        return True

    @property
    def is_over(self) -> bool:
        """Whether it has done what there was to do, or was given up."""
        return self._task.done()

    def add(self, failed: R, delay: float) -> None:
        """Restart a service, too, after that many seconds."""
        self._failed.append((failed, delay))

    def give_up(self) -> "asyncio.Future[None]":
        """Give it up; return what to wait for.

        What is being stopped is stopped all the same, and what is being started is rolled back.
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
                # Those that failed meanwhile and were not stopped with the others are next.
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
