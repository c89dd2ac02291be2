"""Checks: whether the services of an application can do their work, as they themselves say from time to time.

A service with a ``check`` hook says it; see `Service`. The results are for operators and load balancers.
Nothing is restarted because of them.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tamed._os.text import noun
from tamed.errors import reason
from tamed.log.logger import own_logger
from tamed.service._hooks import current_service
from tamed.service._tasks import is_cancelled
from tamed.service.lifecycle import State
from tamed.service.service import Service

__all__ = ["CheckResult", "Checks"]

log = own_logger("tamed.service")

_LOOK: Final = 1.0  # seconds: services come and go
_LONGEST: Final = 300  # characters of a reason
_MOST: Final = 100  # services


class CheckResult(NamedTuple):
    """The last result of a service's check.

    ``why`` is the reason why the service cannot do its work, empty if it can, None if it was not asked yet.
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
        # By the paths of the services, which need no hash.
        self._results: dict[str, CheckResult] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._due: dict[str, float] = {}
        self._last: list[CheckResult] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin: the services run. Until they have answered, their results are unknown."""
        self._look()

    def close(self) -> None:
        """End, and cancel the checks that run. May be repeated."""
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
        if (result := self._results.get(name)) is None:  # it was removed meanwhile
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
    """Return whether a service has a check; one that stands by does its work in another process."""
    return type(service).check is not Service.check and not service.lifecycle.stands_by


async def _answer_of(service: Service) -> str:
    """Return why a service cannot do its work, or an empty text."""
    if service.state is not State.RUNNING:
        return f"the service is {service.state.value}"
    current_service.set(service.full_name)
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
    return f"check() has returned {noun(type(said).__name__)}, neither a text nor None"
