"""Services that are added while their parent runs."""

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from tamed._logger import own_logger
from tamed.errors import ApplicationFailed, reason
from tamed.service._hook import is_cancelled
from tamed.service._turn import Turn
from tamed.service._up import bring_up

if TYPE_CHECKING:
    from tamed.service._multi import MultiService
    from tamed.service._service import Service

__all__ = ["JOINED", "Joining"]

log = own_logger("tamed.service")


class Joining:
    """A service that is being brought up to where its parent is; to be awaited, or not.

    If it does not get there it is taken out again, and whoever awaits this is told; if nobody does, the
    log is.
    """

    def __init__(self, parent: "MultiService", child: "Service") -> None:
        self._parent = parent
        self._child = child
        self._path = child.full_name
        self._is_given_up = False
        self._is_awaited = False
        parent._joining[child.name] = self
        self._turn = Turn(child)
        self._task = self._turn.owner = asyncio.get_running_loop().create_task(bring_up(child))
        self._task.add_done_callback(self._see_to_the_end)

    def __await__(self) -> Generator[Any, None, None]:
        self._is_awaited = True
        try:
            yield from self._task
        except asyncio.CancelledError:
            if self._is_given_up and not is_cancelled():
                what = f"service {self._path} was not started"
                raise ApplicationFailed(what, "it was stopped before") from None
            raise

    def give_up(self) -> "asyncio.Future[None]":
        """Have it rolled back; return what to wait for."""
        if not self._is_given_up:
            self._is_given_up = True
            self._task.cancel()
        return self._task

    def _see_to_the_end(self, task: "asyncio.Task[None]") -> None:
        """Take it out if it did not get there: in a callback, as a task may be cancelled before it begins."""
        self._turn.end()
        del self._parent._joining[self._child.name]
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._parent._disown_child(self._child)
        if error is not None and not self._is_awaited:
            what = "a service added to %s did not start: %s"
            log.error(what, self._parent.full_name, reason(error), exc_info=error)


class _Joined:
    """What is awaited when there is nothing to wait for, with or without a running event loop."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


JOINED = _Joined()
