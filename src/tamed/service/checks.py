"""Health checks: services report at intervals whether they can do their work.

A service reports it in its ``check`` hook; see `Service`. The results are for operators and load balancers;
they restart nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tamed._os.text import noun
from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.service._tasks import current_service, is_cancelled
from tamed.service.lifecycle import State
from tamed.service.service import Service

__all__ = ["CheckResult", "Checks"]

log = own_logger("tamed.service")

_LOOK: Final = 1.0  # seconds between two searches for new and removed services
_LONGEST: Final = 300  # characters of a reason
_MOST: Final = 100  # services


class CheckResult(NamedTuple):
    """The last result of a service's check.

    ``why`` is the reason for a failure, empty if the check passes, None before the first result.
    """

    name: str
    gates: bool
    why: str | None = None


class Checks:
    """Calls the check of each service below ``root`` at its interval, from `start` to `close`.

    ``changed`` is called with the results of all services when one of them changes.
    """

    def __init__(self, root: Service, changed: Callable[[list[CheckResult]], object]) -> None:
        self._root = root
        self._changed = changed
        # Keyed by path: services need not be hashable.
        self._results: dict[str, CheckResult] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._due: dict[str, float] = {}
        self._last: list[CheckResult] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin calling the checks, once the services run. Results are unknown until the first answer."""
        self._look()

    def close(self) -> None:
        """Cancel running checks, and call no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._asked.values()):
            task.cancel()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        services = [each for each in self._root.walk() if _is_asked(each)][:_MOST]
        self._results = {
            name: self._results.get(name, CheckResult(name, each.check_gates_readiness))
            for each in services
            if (name := each.full_name)
        }
        self._report()
        self._due = {name: self._due.get(name, now) for name in self._results}
        for service in services:
            name = service.full_name
            if self._due[name] <= now and name not in self._asked:
                self._due[name] = now + service.check_interval
                self._asked[name] = loop.create_task(self._ask(service, name))
        left = min((due - now for name, due in self._due.items() if name not in self._asked), default=_LOOK)
        self._timer = loop.call_later(max(0.0, min(left, _LOOK)), self._look)

    async def _ask(self, service: Service, name: str) -> None:
        try:
            why = " ".join((await _answer_of(service)).split())[:_LONGEST]
        finally:
            del self._asked[name]
        if (result := self._results.get(name)) is None:  # it was removed in the meantime
            return
        if why and why != result.why:
            log.warning("the check of %s fails: %s", name, why)
        elif result.why and not why:
            log.info("the check of %s passes again", name)
        self._results[name] = result._replace(why=why)
        self._report()

    def _report(self) -> None:
        results = list(self._results.values())
        if results != self._last:
            self._last = results
            self._changed(results)


def _is_asked(service: Service) -> bool:
    """Return whether to call a service's check. On standby, another process does the work."""
    return type(service).check is not Service.check and not service.lifecycle.stands_by


async def _answer_of(service: Service) -> str:
    """Return the reason why a service cannot do its work, or an empty text."""
    if service.state is not State.RUNNING:
        return f"the service is {service.state.value}"
    current_service.set(service)
    deadline = asyncio.timeout(service.check_timeout)
    try:
        async with deadline:
            said: Any = await service.check()
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        if isinstance(error, TimeoutError) and deadline.expired():
            return f"no answer within {service.check_timeout:g} s"
        return reason(error)
    if said is None or isinstance(said, str):
        return said or ""
    return f"check() returned {noun(type(said).__name__)}, expected a text or None"
