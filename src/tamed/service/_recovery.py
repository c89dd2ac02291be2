"""How services that failed are brought back, and what happens when they cannot be.

A failure goes to the service's own restart policy first. While its budget lasts, the service is started
again, with those of its siblings that the parent's strategy names. Past it, the failure is the parent's:
its policy is asked, and so on up to the root, which takes it as the end (Erlang's supervision
principles).

A service that is stopping, or below one that is, is not brought back: its failure is logged. One that is
starting has not kept its promise yet: a failure that reaches it fails its start, and whoever started it
sees to that.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tamed._logger import own_logger
from tamed.errors import ApplicationFailed, ServiceFailed
from tamed.service._down import Descent
from tamed.service._hook import failure_of, report
from tamed.service._restart import RestartBudget
from tamed.service._state import FAILED, STOPPING
from tamed.service._turn import turn
from tamed.service._up import start

if TYPE_CHECKING:
    from tamed.service._multi import MultiService
    from tamed.service._service import Service

__all__ = ["Recovery", "ended", "failed"]

log = own_logger("tamed.service")


def failed(service: "Service", failure: ServiceFailed) -> None:
    """See to a service that failed: begin to bring it back, or pass the failure up."""
    if _is_stopping(service):
        report(failure, "it was being stopped")
    elif isinstance(failure.cause, SystemExit):
        service.root_service._take_failure(failure)
    elif service._start_watch is not None:
        report(failure, f"{service.full_name} does not start")
        service._start_watch.failed(failure)
    else:
        service.state = FAILED
        wait = _wait_before_restart(service, failed=True)
        if wait is not None:
            report(failure, f"it is started again in {wait:.1f} s")
            _bring_back(service, wait)
        elif service.parent is not None:
            if service.restarts:
                times = "1 restart" if service.restarts == 1 else f"{service.restarts} restarts"
                log.error("service %s is given up after %s", service.full_name, times)
            failed(service.parent, failure)
        else:
            report(failure)
            service._take_failure(failure)


def ended(service: "Service") -> None:
    """See to a service whose body ended without a failure."""
    if _is_stopping(service):
        return
    wait = _wait_before_restart(service, failed=False)
    if wait is not None:
        log.info("service %s ended; it is started again in %.1f s", service.full_name, wait)
        _bring_back(service, wait)
    elif service.restart.when == "always":
        limit = f"it keeps ending: {service.restart.limit} restarts within {service.restart.within:g} s"
        failed(service, failure_of(service, "run", ApplicationFailed(limit)))


def _is_stopping(service: "Service | None") -> bool:
    while service is not None:
        if service.state is STOPPING:
            return True
        service = service.parent
    return False


def _wait_before_restart(service: "Service", *, failed: bool) -> float | None:
    if service._restart_budget is None:
        service._restart_budget = RestartBudget(service.restart)
    now = asyncio.get_running_loop().time()
    ran = now - service._up_since if service._needs_stop else 0.0  # else it failed to start
    return service._restart_budget.after(failed=failed, now=now, ran=ran)


def _bring_back(service: "Service", wait: float) -> None:
    service.restarts += 1
    parent = service.parent
    if parent is None or parent.strategy == "one_for_one":
        if service._own_recovery is None or service._own_recovery.is_over:
            service._own_recovery = Recovery(service, wait)
        else:
            service._own_recovery.add(service, wait)
    elif parent._group_recovery is None or parent._group_recovery.is_over:
        parent._group_recovery = Recovery(service, wait, parent)
    else:
        parent._group_recovery.add(service, wait)


class Recovery:
    """Brings back a service, or those children of a multi-service that are restarted together.

    It is one task for the whole group, so that a failure in the middle of it is seen to after it and not
    at once.
    """

    def __init__(self, service: "Service", wait: float, group: "MultiService | None" = None) -> None:
        self._group = group
        self._failed = [(service, wait)]
        self._is_stopping = False
        self._is_given_up = False
        self._task = asyncio.get_running_loop().create_task(self._work())

    @property
    def is_over(self) -> bool:
        """Whether it has done what there was to do, or was given up."""
        return self._task.done()

    def add(self, service: "Service", wait: float) -> None:
        """Bring a service back, too, after that many seconds."""
        self._failed.append((service, wait))

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
        if self._group is not None and self._group._start_watch is not None:
            await self._group._start_watch.over.wait()
        while self._failed:
            affected = self._affected()
            wait = max(wait for _, wait in self._failed)
            _mark(affected, restarting=True)
            try:
                await self._stop(affected)
                if self._is_given_up:
                    return
                self._forget(affected)
                await asyncio.sleep(wait)
                await self._start(affected)
            finally:
                _mark(affected, restarting=False)

    def _affected(self) -> "Sequence[Service]":
        failed = [service for service, _ in self._failed]
        return failed[:1] if self._group is None else self._group._restarted_with(failed)

    def _forget(self, affected: "Sequence[Service]") -> None:
        """Keep those that failed meanwhile and were not stopped with the others."""
        seen_to = {id(service) for service in affected}
        self._failed = [
            (service, wait)
            for service, wait in self._failed
            if id(service) not in seen_to and service.parent is self._group
        ]

    async def _stop(self, affected: "Sequence[Service]") -> None:
        self._is_stopping = True
        for service in reversed(affected):
            async with turn(service):
                await Descent().walk(service, stop=True)
        self._is_stopping = False

    async def _start(self, affected: "Sequence[Service]") -> None:
        for service in affected:
            async with turn(service):
                if self._group is not None and service.parent is not self._group:
                    continue  # it was removed meanwhile
                try:
                    await start(service)
                except ServiceFailed as failure:
                    failed(service, failure)
                    return
            _mark([service], restarting=False)


def _mark(services: "Sequence[Service]", *, restarting: bool) -> None:
    for service in services:
        for one in service.walk():
            one.restarting = restarting
