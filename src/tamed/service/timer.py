"""A service that calls a function at an interval."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable

from tamed.log.logger import own_logger
from tamed.service._tasks import is_cancelled
from tamed.service.role import Scope
from tamed.service.service import Service, require_function

__all__ = ["TimerService"]

log = own_logger("tamed.service")


class TimerService(Service):
    """Calls a function every ``interval`` seconds, the first time at once unless ``now`` is false.

    The function may be a coroutine function. Calls never overlap, and the times do not drift: they are
    multiples of the interval after the start on the event loop's clock, and those that pass during a call
    are skipped. An exception of a call is logged with its traceback, and the timer continues. With
    ``only="host"`` the timer runs in one worker at a time. Raises ValueError for an interval that is not
    positive and finite, and ServiceMisuse for a call that is no function.
    """

    def __init__(
        self,
        interval: float,
        call: Callable[[], object] | Callable[[], Awaitable[object]],
        *,
        now: bool = True,
        name: str | None = None,
        only: Scope | None = None,
    ) -> None:
        super().__init__(name, only=only)
        if not 0 < interval < math.inf:
            raise ValueError(f"a timer needs an interval above 0 seconds, not {interval!r}")
        require_function(self, "call", call)
        self.interval = interval
        self._call = call
        self._now = now

    async def run(self) -> None:
        """Call at every multiple of the interval, until cancelled."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        tick = 0
        if self._now:
            await self._call_once()
        while True:
            # Not the clock alone: an event loop may wake slightly early, which would cause a second call.
            tick = max(tick, int((clock() - begun) / self.interval)) + 1
            await asyncio.sleep(begun + tick * self.interval - clock())
            await self._call_once()

    async def _call_once(self) -> None:
        try:
            result = self._call()
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            log.exception("a call of timer %s failed; the timer continues", self.full_name)
