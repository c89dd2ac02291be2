"""Restarting failed services, and those restarted together with them, in one task.

A service that fails during a recovery is restarted after it, in the same task.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

__all__ = ["Recovery", "Restartable"]


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
    """Restarts one service; a subclass defines the others that are restarted with it."""

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
