"""The life of services: every change of a service's state is made in this file.

At start a service's own hook runs before those of its children, at stop after them, so that a multi-service
can acquire resources for its children. At start the first failure rolls everything back and is raised. At
stop every failure is logged and collected, and the other services are stopped anyway. All of it happens in
the caller's task: only a service with a ``run`` body has its own task. A task that starts or stops a service
waits for another task that is doing so.

A service that fails while it runs is restarted by its own policy first, together with the siblings that its
parent's strategy selects. If its policy allows no restart, the failure is escalated to the parent and its
policy, and so on to the root, which ends (Erlang's supervision principles). A service that is stopping, or
below one that is, is not restarted: its failure is logged. A failure that is escalated to a service that is
starting fails its start.

A service with ``only`` (see ``role``) is started up to STANDBY, and further when its role is granted. It
keeps the role while its restart policy restarts it, and resigns it when it is stopped for good. If its stop
fails, it may still be running: then it keeps the role until the process ends.
"""

import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final

from tamed._os.text import counted
from tamed.errors import ApplicationFailed, ServiceFailed, ServiceMisuse
from tamed.log.logger import own_logger
from tamed.service._tasks import (
    Body,
    FailureScope,
    Hooks,
    Operation,
    Recovery,
    Shutdown,
    current_service,
    failure_of,
    finish_hook,
    is_cancelled,
    report,
    until_done,
)
from tamed.service.restart import RestartBudget
from tamed.service.role import Campaign, Lease, check_scope, current_roles

__all__ = ["Lifecycle", "State", "current_path"]

log = own_logger("tamed.service")


def current_path() -> str | None:
    """Return the path of the service whose hook made this call, directly or through tasks it created."""
    service = current_service.get()
    return None if service is None else service.full_name


class State(enum.Enum):
    """The state of a service.

    IDLE → PREPARED → STARTING → RUNNING → STOPPING → STOPPED, and FAILED from any of them.
    A service that is STOPPED or FAILED can be started again. One that runs in one process only is in
    STANDBY between PREPARED and STARTING, while another process runs it.
    """

    IDLE = "idle"
    PREPARED = "prepared"
    STANDBY = "standby"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


# Module-level names: Python 3.11 takes 100 ns to look up an enum member.
IDLE, PREPARED, STANDBY, STARTING, RUNNING, STOPPING, STOPPED, FAILED = State

_DONE: Final = object()  # what a hook that has ended waits for


class Lifecycle:
    """The life of one service: its state, its place in the tree, and its pending operations.

    ``service`` has the hooks, and ``overridden`` are the names of those that are not empty. ``restarts``
    counts the restarts since the service was prepared, and ``is_restarting`` is whether it is being stopped
    for a restart. ``took`` is the duration of the last call of each hook, in seconds. ``calling`` is the
    running hook, and its start (time.monotonic). ``on_prepare`` is called before the hook ``prepare``.
    ``on_failure`` is called on a root for a failure that no restart policy handles, and returns whether it
    handled it.
    """

    def __init__(self, service: Hooks, overridden: frozenset[str]) -> None:
        self.service = service
        self.on_prepare: Callable[[], object] | None = None
        self.on_failure: Callable[[ServiceFailed], bool] | None = None
        self.parent: Lifecycle | None = None
        self.children: list[Lifecycle] = []
        self.state = IDLE
        self.restarts = 0
        self.is_restarting = False
        self.is_prepared = False
        self.is_started = False
        self.took: dict[str, float] = {}
        self.calling: tuple[str, float] | None = None
        self._overridden = overridden
        self._operation: Operation | None = None  # the pending start or stop
        self._body: Body | None = None
        self._up_since = 0.0
        self._budget: RestartBudget | None = None
        self._recovery: Recovery[Lifecycle] | None = None  # of this service alone
        self._campaign: Campaign | None = None  # for its role
        self._leaving_role: asyncio.Task[None] | None = None
        self._start_scope: FailureScope | None = None  # for failures while children are started
        self._user_scope: FailureScope | None = None  # for failures in the body of `async with`

    # Operations for callers.

    async def bring_up(self) -> None:
        """Prepare the tree, if necessary, and start it.

        If that fails or is cancelled, everything is stopped and released. Raises ServiceFailed, and
        ServiceMisuse if the tree is already started.
        """
        async with self.exclusively():
            self._must_be_down()
            await self._bring_up()

    async def take_down(self) -> list[ServiceFailed]:
        """Stop and release the tree, as far as necessary; return the failures, which are logged."""
        return await self._take_down(stop=True, release=True)

    async def prepare(self) -> None:
        """Call the tree's ``prepare`` hooks; if one fails, release the prepared ones and raise it."""
        async with self.exclusively():
            if not self.is_prepared:
                await self._prepare()

    async def start(self) -> None:
        """Start the tree in order; if a service fails, stop the started ones in reverse order.

        Services that are not prepared are prepared first. Raises ServiceFailed, or ServiceMisuse if the tree
        is started already.
        """
        async with self.exclusively():
            self._must_be_down()
            try:
                await self._start()
            except (Exception, asyncio.CancelledError):
                await self.undo(stop=True)
                raise

    async def stop(self) -> list[ServiceFailed]:
        """Stop the tree in reverse order, one service after the other; return the failures.

        A cancellation interrupts the current hook only, and is raised after all services are stopped.
        """
        return await self._take_down(stop=True)

    async def release(self) -> list[ServiceFailed]:
        """Release the tree in reverse order; return the failures. Raises ServiceMisuse if it is started."""
        if self.is_up:
            what = f"cannot release service {self.service.full_name}"
            raise ServiceMisuse(what, f"it is {self.state.value}", "stop it first")
        return await self._take_down(release=True)

    async def enter(self) -> None:
        """Bring up the tree; from then on a failure of it cancels the current task."""
        if self.parent is not None:
            what = f"cannot start service {self.service.full_name} by itself"
            raise ServiceMisuse(what, f"it is a part of {self.root.service.full_name}", "start that service")
        await self.bring_up()
        self._user_scope = FailureScope()

    async def leave(self, error: BaseException | None) -> None:
        """Take the tree down; raise the failure that cancelled the task, or the first one of the stop."""
        assert self._user_scope is not None
        failure, self._user_scope = self._user_scope.end(error), None
        failures = await self.take_down()
        if failure is not None:
            raise failure
        if error is None and failures:
            raise failures[0]

    @property
    def is_up(self) -> bool:
        """Whether it needs a stop: it is started, on standby, or holds a role."""
        return self.is_started or self._campaign is not None

    @property
    def lease(self) -> Lease | None:
        """The lease of its role, or of the nearest service above it that has one; None without a role."""
        own = None if self._campaign is None else self._campaign.lease
        return own if own is not None or self.parent is None else self.parent.lease

    @property
    def stands_by(self) -> bool:
        """Whether it, or a service above it, is on standby."""
        waits = self._campaign is not None and self._campaign.lease is None
        return waits or (self.parent is not None and self.parent.stands_by)

    @property
    def is_busy(self) -> bool:
        """Whether it is prepared, or has a pending operation."""
        return self.is_prepared or self._operation is not None

    @property
    def root(self) -> "Lifecycle":
        """The root of its tree."""
        one: Lifecycle = self
        while one.parent is not None:
            one = one.parent
        return one

    def walk(self) -> "Iterator[Lifecycle]":
        """Yield this lifecycle and all below it, parents first, in starting order."""
        yield self
        for child in self.children:
            yield from child.walk()

    # Preparing and starting.

    @asynccontextmanager
    async def exclusively(self) -> AsyncIterator[None]:
        """Wait for the pending operation on the service, and make other operations wait for this one.

        (Not an `asyncio.Lock`: that is bound to the first event loop in which a task waited for it.)
        """
        while self._operation is not None:
            await asyncio.wait([self._operation.over])
        self._operation = operation = Operation()
        try:
            yield
        finally:
            self._operation = None
            operation.end()

    def _must_be_down(self) -> None:
        if self.is_up:
            what = f"cannot start service {self.service.full_name}"
            raise ServiceMisuse(what, f"it is {self.state.value} already")

    def bring_up_soon(self) -> "asyncio.Task[None]":
        """Bring it up in a separate task, which is its pending operation from now on."""
        self._operation = operation = Operation()
        task = asyncio.get_running_loop().create_task(self._bring_up())
        operation.owner = task

        def end(_: "asyncio.Task[None]") -> None:  # a callback: a task can be cancelled before it begins
            self._operation = None
            operation.end()

        task.add_done_callback(end)
        return task

    async def _bring_up(self) -> None:
        if not self.is_prepared:
            await self._prepare()
        try:
            await self._start()
        except (Exception, asyncio.CancelledError):
            await self.undo(stop=True, release=True)
            raise

    async def _prepare(self) -> None:
        self.restarts = 0
        self._budget = None
        if self.on_prepare is not None:
            self.on_prepare()
        if "prepare" in self._overridden:
            await self._call("prepare", self.service.prepare())
        self.is_prepared = True
        self.state = PREPARED
        try:
            for child in self.children:  # no copy: a hook may add children
                if not child.is_prepared:
                    await child._prepare()
        except (Exception, asyncio.CancelledError):
            try:
                await self.undo(release=True)
            finally:
                self.state = FAILED
            raise

    async def _start(self) -> None:
        if removals := self._pending_removals():
            await until_done(removals)
        if not self.is_prepared:
            await self._prepare()
        if self.service.only and not self._has_role():
            self.state = STANDBY
            return
        self.state = STARTING
        if "start" in self._overridden:
            await self._call("start", self.service.start())
        self.is_started = True
        if self.children and (error := await self._start_children()) is not None:
            try:
                await self.undo(stop=True)
            finally:
                self.state = FAILED
            raise error
        self.state = RUNNING
        if "run" in self._overridden or self.children:
            self._up_since = asyncio.get_running_loop().time()
        if "run" in self._overridden:
            self._body = Body(self.service, self._body_ended)
        self._log_that("started")

    async def _start_children(self) -> BaseException | None:
        """Start the children in order; return the error that prevents the service from starting.

        That can be the failure of a child that was started before: no more children are started after it.
        """
        error: BaseException | None = None
        scope = self._start_scope = FailureScope()
        try:
            for child in self.children:  # no copy: a service that is started may add children
                if not child.is_started:
                    await child._start()
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        self._start_scope = None
        return scope.end(error) or error

    # Stopping and releasing.

    async def _take_down(self, *, stop: bool = False, release: bool = False) -> list[ServiceFailed]:
        shutdown = Shutdown()
        await self.settle(shutdown)
        async with self.exclusively():
            return await self.undo(shutdown, stop=stop, release=release)

    async def undo(
        self, shutdown: Shutdown | None = None, *, stop: bool = False, release: bool = False
    ) -> list[ServiceFailed]:
        """Stop a started tree, and release a prepared one, as requested; return the failures."""
        shutdown = shutdown or Shutdown()
        if stop and self.is_up:
            await self._stop(shutdown)
        if release and self.is_prepared:
            await self._release(shutdown)
        return shutdown.end()

    async def settle(self, shutdown: Shutdown) -> None:
        """Cancel its recovery, and wait for its pending operation."""
        while True:
            if self._recovery is not None and not self._recovery.is_over:
                work = self._recovery.give_up()
            elif self._operation is not None:
                work = self._operation.over
            else:
                return
            with shutdown:
                await until_done([work])

    async def _stop(self, shutdown: Shutdown) -> None:
        failed_before = len(shutdown.failures)
        if self.is_started:
            await self._stop_started(shutdown, failed_before)
        elif self.state is STANDBY:
            self.state = STOPPED
        if not self.is_restarting:
            is_certain = len(shutdown.failures) == failed_before and not shutdown.is_cancelled
            self._leave_role(is_stopped=is_certain)

    async def _stop_started(self, shutdown: Shutdown, failed_before: int) -> None:
        self.state = STOPPING
        if work := self._give_up_work():
            with shutdown:
                await until_done(work)
        body, self._body = self._body, None
        if body is not None:
            with shutdown:
                await body.end(self.service.stop_timeout)
        for child in reversed(self.children):
            if child._recovery is not None or child._operation is not None:
                await child.settle(shutdown)
            if child.is_up:
                await child._stop(shutdown)
        self.is_started = False
        if "stop" in self._overridden:
            with shutdown:
                await self._call("stop", self.service.stop())
        if len(shutdown.failures) > failed_before or self.state is FAILED:
            self.state = FAILED
        else:
            self.state = STOPPED
            self._log_that("stopped")

    async def _release(self, shutdown: Shutdown) -> None:
        if removals := self._pending_removals():
            with shutdown:
                await until_done(removals)
        for child in reversed(self.children):
            if child.is_prepared:
                await child._release(shutdown)
        self.is_prepared = False
        if self.state is PREPARED:
            self.state = STOPPED
        if "release" in self._overridden:
            with shutdown:
                await self._call("release", self.service.release())

    def _give_up_work(self) -> "Sequence[asyncio.Future[None]]":
        """Cancel pending additions and restarts of children; return the futures to wait for."""
        return ()

    def _pending_removals(self) -> "Sequence[asyncio.Future[None]]":
        """Return the futures to wait for until pending removals of children are done."""
        return ()

    # The role of a service with ``only``.

    def _has_role(self) -> bool:
        """Campaign for the role, if it does not do so yet; return whether it is granted."""
        if self._campaign is None:
            check_scope(self.service.only, f"service {self.service.full_name}")
            self._campaign = current_roles().campaign(
                self.service.full_name,
                self.service.only,
                granted=self._role_granted,
                revoked=self._role_revoked,
            )
        return self._campaign.lease is not None

    def _role_granted(self) -> None:
        if self.state is STANDBY:  # otherwise it is being restarted together with others
            self.recover(0.0)

    def _role_revoked(self) -> None:
        self._leaving_role = asyncio.get_running_loop().create_task(self._stand_by())

    def _leave_role(self, *, is_stopped: bool) -> None:
        campaign, self._campaign = self._campaign, None
        if campaign is not None and is_stopped:
            campaign.withdraw()

    async def _stand_by(self) -> None:
        """Stop the service and resign its role; then campaign again, if the service is still wanted.

        It is stopped as for a restart, so a server keeps its sockets for the next grant, and leaves the
        clients in their queue to the next holder. If it cannot be stopped, the root ends, because only the
        end of the process then frees the role.
        """
        shutdown = Shutdown()
        await self.settle(shutdown)
        async with self.exclusively():
            if self._campaign is None:  # it was stopped in the meantime
                return
            self.mark_restarting(restarting=True)
            try:
                failures = await self.undo(shutdown, stop=True)
            finally:
                self.mark_restarting(restarting=False)
            for each in self.walk():
                each._leave_role(is_stopped=not failures)
            if failures:
                self.root._end_by(failures[0])
                return
        await self.start_again(self._is_wanted)

    def _is_wanted(self) -> bool:
        return not self._is_below_stopping() and (self.parent is None or self.parent.is_started)

    # Hooks.

    async def _call(self, phase: str, hook: Coroutine[Any, Any, None]) -> None:
        """Run a hook within the service's deadline for the phase.

        Raises ServiceFailed for an exception of the hook, and CancelledError if this task is cancelled.

        A hook that never waits cannot be interrupted and needs no timer: the timer is armed when the hook
        waits for the first time. With a timer for each hook, 1,000 services with two hooks take 18 ms to
        build, start and stop instead of 9 (Twisted's: 6.5). Most hooks never wait.
        """
        began = monotonic()
        self.calling = phase, began
        token = current_service.set(self.service)
        try:
            if (awaited := next(hook.__await__(), _DONE)) is not _DONE:
                is_start = phase in ("prepare", "start")
                seconds = self.service.start_timeout if is_start else self.service.stop_timeout
                await finish_hook(hook, awaited, seconds)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            self.state = FAILED
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            raise failure_of(self.service.full_name, phase, error) from error
        finally:
            current_service.reset(token)
            self.calling = None
        self.took[phase] = monotonic() - began

    def _log_that(self, change: str) -> None:
        """Log that the service has started or stopped, if it has hooks of its own."""
        if log.isEnabledFor(logging.INFO) and not self._overridden.isdisjoint(("start", "run", "stop")):
            log.info("%s %s", change, self.service.full_name)

    # Failures and the restart policy.

    def failed(self, failure: ServiceFailed) -> None:
        """Apply the restart policy to a service that failed: schedule a restart, or escalate."""
        if self._is_below_stopping():
            report(failure, "it was being stopped")
        elif isinstance(failure.cause, SystemExit):
            self.root._end_by(failure)
        elif self._start_scope is not None:
            report(failure, f"{self.service.full_name} does not start")
            self._start_scope.fail(failure)
        else:
            self.state = FAILED
            delay = self._restart_delay(failed=True)
            if delay is not None:
                report(failure, f"restarting it in {delay:.1f} s")
                self._schedule_restart(delay)
            elif self.parent is not None:
                if self.restarts:
                    times = counted(self.restarts, "restart")
                    log.error("giving up service %s after %s", self.service.full_name, times)
                self.parent.failed(failure)
            else:
                report(failure)
                self._end_by(failure)

    def _body_ended(self, failure: ServiceFailed | None) -> None:
        """Apply the restart policy to a service whose ``run`` has returned or failed."""
        if failure is not None:
            self.failed(failure)
            return
        if self._is_below_stopping():
            return
        delay = self._restart_delay(failed=False)
        restart = self.service.restart
        if delay is not None:
            log.info("service %s ended; restarting it in %.1f s", self.service.full_name, delay)
            self._schedule_restart(delay)
        elif restart.when == "always":
            limit = f"it keeps ending: {restart.limit} restarts within {restart.within:g} s"
            self.failed(failure_of(self.service.full_name, "run", ApplicationFailed(limit)))

    def _is_below_stopping(self) -> bool:
        return self.state is STOPPING or (self.parent is not None and self.parent._is_below_stopping())

    def _end_by(self, failure: ServiceFailed) -> None:
        """End because of a failure that no restart policy handles; only for roots."""
        scope = self._start_scope or self._user_scope
        is_handled = self.on_failure is not None and self.on_failure(failure)
        if not is_handled and scope is not None:
            scope.fail(failure)

    def _restart_delay(self, *, failed: bool) -> float | None:
        if self._budget is None:
            self._budget = RestartBudget(self.service.restart)
        now = asyncio.get_running_loop().time()
        ran = now - self._up_since if self.is_started else 0.0  # otherwise it failed to start
        return self._budget.next_delay(failed=failed, now=now, ran=ran)

    def _schedule_restart(self, delay: float) -> None:
        self.restarts += 1
        if self.parent is None:
            self.recover(delay)
        else:
            self.parent.recover_child(self, delay)

    def recover_child(self, child: "Lifecycle", delay: float) -> None:
        """Restart a child after ``delay`` seconds, with the siblings that are restarted together with it."""
        child.recover(delay)

    def recover(self, delay: float) -> None:
        """Restart this service alone after ``delay`` seconds."""
        if self._recovery is None or self._recovery.is_over:
            self._recovery = Recovery(self, delay)
        else:
            self._recovery.add(self, delay)

    def mark_restarting(self, *, restarting: bool) -> None:
        """Set, for it and all below it, whether it is stopped to be started again."""
        for each in self.walk():
            each.is_restarting = restarting

    async def stop_to_restart(self) -> None:
        """Wait for a pending operation on the service, and then stop it, as far as it is started."""
        async with self.exclusively():
            await self.undo(stop=True)

    async def start_again(self, is_wanted: Callable[[], bool]) -> bool:
        """Wait for a pending operation, and then start the service if ``is_wanted`` still returns true.

        Returns False if the start failed; the restart policy is applied to that failure.
        """
        async with self.exclusively():
            if is_wanted():
                try:
                    await self._start()
                except ServiceFailed as failure:
                    self.failed(failure)
                    return False
        return True
