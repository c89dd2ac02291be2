"""How a tree of services is stopped and released: in reverse order, and to the end, whatever fails."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any

from tamed.errors import ServiceFailed
from tamed.service._hook import Rest, begin, call, is_telling, report, tell
from tamed.service._state import FAILED, PREPARED, STOPPED, STOPPING
from tamed.service._turn import until_done

if TYPE_CHECKING:
    from tamed.service._service import Service

__all__ = ["Descent"]


class Descent:
    """A walk down a tree.

    A hook that fails is logged and collected, and keeps nothing else from being stopped. Nor does a
    cancellation: it interrupts the hook that is being waited for, and is raised at the end.
    """

    def __init__(self) -> None:
        self._failures: list[ServiceFailed] = []
        self._cancelled: asyncio.CancelledError | None = None

    async def walk(
        self, service: "Service", *, stop: bool = False, release: bool = False
    ) -> list[ServiceFailed]:
        """Stop the tree if it is started, release it if it is prepared, as asked; return what failed."""
        if stop and service._needs_stop:
            await self._stop(service)
            tell(service)
        if release and service._needs_release:
            await self._release(service)
        if self._cancelled is not None:
            raise self._cancelled
        return self._failures

    async def free(self, service: "Service") -> None:
        """Give up bringing the service back, and wait until nobody is at work on it."""
        while True:
            if service._own_recovery is not None and not service._own_recovery.is_over:
                work = service._own_recovery.give_up()
            elif service._turn_taken is not None:
                work = service._turn_taken.over
            else:
                return
            await self._through(until_done([work]))

    async def _stop(self, service: "Service") -> None:
        failed_before = len(self._failures)
        service.state = STOPPING
        await self._through(until_done(service._give_up_work()))
        body, service._run_body = service._run_body, None
        if body is not None:
            await self._through(body.end(service.stop_timeout))
        telling = is_telling()
        for child in reversed(service._children):
            if not child._is_plain or child._turn_taken is not None:
                await self.free(child)
            if child._needs_stop:
                rest = self._stop_itself(child) if child._is_plain else self._stop(child)
                if rest is not None:
                    await rest
                if telling:
                    tell(child)
        if (rest := self._stop_itself(service)) is not None:
            await rest
        if len(self._failures) > failed_before:
            service.state = FAILED

    def _stop_itself(self, service: "Service") -> Rest:
        """Stop what has nothing below it any more; as on the way up, return what is left to be awaited."""
        service._needs_stop = False
        if service._has_stop:
            service.state = STOPPING
            try:
                if (rest := begin(service, "stop", service.stop())) is not None:
                    return self._stop_rest(service, rest)
            except (ServiceFailed, asyncio.CancelledError) as error:
                self._note(error)
                return None
        service.state = STOPPED
        return None

    async def _stop_rest(self, service: "Service", rest: Coroutine[Any, Any, None]) -> None:
        if await self._through(rest):
            service.state = STOPPED

    async def _release(self, service: "Service") -> None:
        await self._through(until_done(service._departures()))
        for child in reversed(service._children):
            if child._nothing_to_prepare:
                _put_down(child)
            elif child._needs_release:
                await self._release(child)
        _put_down(service)
        if service._has_release:
            await self._through(call(service, "release", service.release()))

    async def _through(self, step: Awaitable[None]) -> bool:
        """Await a step; return whether it went well."""
        try:
            await step
        except (ServiceFailed, asyncio.CancelledError) as error:
            self._note(error)
            return False
        return True

    def _note(self, error: ServiceFailed | asyncio.CancelledError) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._cancelled = error
        else:
            report(error)
            self._failures.append(error)


def _put_down(service: "Service") -> None:
    service._needs_release = False
    if service.state is PREPARED:
        service.state = STOPPED
