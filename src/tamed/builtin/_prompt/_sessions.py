"""The sessions of a server: counted, and limited."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial

from tamed._logger import own_logger
from tamed.service.service import Service

__all__ = ["Sessions"]

log = own_logger("tamed.builtin")


class Sessions(Service):
    """Counts sessions, of which there may be ``most``: from the login on, so that logging in takes no place.

    It is a service to have a place in the application that they show.
    """

    def __init__(self, most: int) -> None:
        super().__init__("sessions")
        self.most = most
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def summary(self) -> str:
        """How many there are, and may be."""
        return f"{self._open} of {self.most} sessions"

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return self._open >= self.most

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a session while it lasts."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def watch(self, session: Coroutine[object, object, None], peer: str) -> "asyncio.Task[None]":
        """Run what becomes a session in a task. One that raises is logged."""
        task = asyncio.create_task(session, name=f"session with {peer}")
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, peer))
        return task

    def _ended(self, peer: str, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the session with %s failed", peer, exc_info=error)
