"""The sessions of a server: counted, limited, and ended when the server stops."""

import asyncio
from collections.abc import Coroutine
from functools import partial

from tamed._logger import own_logger
from tamed.service import Service

__all__ = ["Sessions"]

log = own_logger("tamed.builtin")


class Sessions(Service):
    """Runs sessions, ``most`` at once. It is a service to have a place in the application that they show."""

    def __init__(self, most: int) -> None:
        super().__init__("sessions")
        self.most = most
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def summary(self) -> str:
        """How many there are, and may be."""
        return f"{len(self._tasks)} of {self.most} sessions"

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return len(self._tasks) >= self.most

    def begin(self, session: Coroutine[object, object, None], peer: str) -> "asyncio.Task[None]":
        """Run a session in a task. One that raises is logged."""
        task = asyncio.create_task(session, name=f"session with {peer}")
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, peer))
        return task

    def _ended(self, peer: str, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the session with %s failed", peer, exc_info=error)
