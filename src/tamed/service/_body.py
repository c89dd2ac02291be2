"""The body of a service: its ``run``, in the one task that a service may cost."""

import asyncio
from typing import TYPE_CHECKING

from tamed.errors import DeadlinePassed, ServiceFailed
from tamed.service._hook import failure_of, report
from tamed.service._turn import until_done

if TYPE_CHECKING:
    from tamed.service._service import Service

__all__ = ["Body"]


class Body:
    """One life of a service's ``run``, from now until it is over, or is ended."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._is_ending = False
        self._task = asyncio.get_running_loop().create_task(self._live(), name=service.full_name)

    async def end(self, seconds: float | None) -> None:
        """Cancel it and wait until it is over; raise ServiceFailed if it does not end well.

        One that is not over within those seconds (None: no deadline) is left behind: it catches its
        cancellation, and what else is to be stopped must be stopped all the same.
        """
        self._is_ending = True
        if self._task is asyncio.current_task():  # it has asked for this, and is to go on afterwards
            self._task.add_done_callback(_report_late)
            return
        self._task.cancel()
        await until_done([self._task], seconds)
        if not self._task.done():
            assert seconds is not None
            self._task.add_done_callback(_report_late)
            raise failure_of(self._service, "run", DeadlinePassed(seconds))
        if not self._task.cancelled() and (failure := self._task.result()) is not None:
            raise failure

    async def _live(self) -> ServiceFailed | None:
        """Run the body and see to how it ends; return its failure if that is for `end` to tell."""
        failure = None
        try:
            await self._service.run()
        except asyncio.CancelledError as error:
            if self._is_ending:
                raise
            failure = failure_of(self._service, "run", error)
        except (Exception, SystemExit) as error:
            failure = failure_of(self._service, "run", error)
        if self._is_ending:
            return failure
        self._service._body_is_over(failure)
        return None


def _report_late(task: "asyncio.Task[ServiceFailed | None]") -> None:
    if not task.cancelled() and (failure := task.result()) is not None:
        report(failure)
