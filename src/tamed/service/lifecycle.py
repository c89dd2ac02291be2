"""The life of services: every change of a service's state is made in this file.

Up, a service's own hook comes before its children's, and down after them, so a multi-service may acquire
what its children use. On the way up the first failure undoes what was done and is raised. On the way down
every failure is logged and collected, and keeps nothing else from being stopped. All of it happens in the
caller's task: no service costs a task unless it has a ``run`` body. A task that comes while another one
brings the same service up or down waits until that is done.

A service that fails while it runs is restarted by its own policy first, with those of its siblings that its
parent's strategy names. Past the policy the failure is the parent's: its policy is asked, and so on up to
the root, which ends by it (Erlang's supervision principles). A service that is stopping, or below one that
is, is not restarted: its failure is logged. One that is starting has not kept its promise yet: a failure that
reaches it fails its start.
"""

import asyncio
import enum
import logging
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import dropwhile
from typing import Any, Final, Literal, Protocol

from tamed.errors import ApplicationFailed, DeadlinePassed, ServiceFailed, ServiceMisuse, TamedError, reason
from tamed.log.logger import own_logger
from tamed.service._tasks import FailureScope, Operation, is_cancelled, until_done
from tamed.service.restart import Restart, RestartBudget

__all__ = ["GroupLifecycle", "Hooks", "Lifecycle", "State", "Strategy"]

log = own_logger("tamed.service")

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


class State(enum.Enum):
    """Where a service is in its life.

    IDLE → PREPARED → STARTING → RUNNING → STOPPING → STOPPED, and FAILED from any of them.
    A service that is STOPPED or FAILED can be started again.
    """

    IDLE = "idle"
    PREPARED = "prepared"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


# Once each: Python 3.11 takes 100 ns to look a member up in its enum.
IDLE, PREPARED, STARTING, RUNNING, STOPPING, STOPPED, FAILED = State

_DONE: Final = object()
_LOGGED: Final = {RUNNING: "started", STOPPED: "stopped"}


class Hooks(Protocol):
    """A service, as its lifecycle sees it."""

    name: str
    restart: Restart
    start_timeout: float | None
    stop_timeout: float | None

    @property
    def full_name(self) -> str:
        """Its path below the root."""

    def default_name(self) -> str:
        """Return the name that it gets if it has none."""

    async def prepare(self) -> None:
        """Acquire what needs privilege."""

    async def start(self) -> None:
        """Become ready."""

    async def run(self) -> None:
        """Live while it runs."""

    async def stop(self) -> None:
        """Undo ``start``."""

    async def release(self) -> None:
        """Undo ``prepare``."""


class Lifecycle:
    """The life of one service: its state, its place in the tree, and what is under way with it.

    ``service`` has the hooks, and ``overridden`` are the names of those that do anything. ``restarts`` counts
    how often it was restarted since it was prepared, and ``is_restarting`` tells whether it is stopped to be
    started again. ``on_prepare`` is called when a life begins. ``on_failure`` is called on a root when a
    failure is past all restart policies, and returns whether that is the end of the matter.
    """

    def __init__(
        self,
        service: Hooks,
        overridden: frozenset[str],
        *,
        on_prepare: Callable[[], object] = lambda: None,
        on_failure: Callable[[ServiceFailed], bool] = lambda _: False,
    ) -> None:
        self.service = service
        self.parent: GroupLifecycle | None = None
        self.children: list[Lifecycle] = []
        self.state = IDLE
        self.restarts = 0
        self.is_restarting = False
        self.is_prepared = False
        self.is_started = False
        self._overridden = overridden
        self._is_logged = not overridden.isdisjoint(("start", "run", "stop"))
        self._on_prepare = on_prepare
        self._on_failure = on_failure
        self._operation: Operation | None = None  # of the task that brings it up or down
        self._body: _Body | None = None
        self._up_since = 0.0
        self._budget: RestartBudget | None = None
        self._recovery: _Recovery | None = None  # of this service by itself
        self._start_scope: FailureScope | None = None  # takes failures while children are started
        self._user_scope: FailureScope | None = None  # and those in the body of `async with`

    # What others ask for.

    async def bring_up(self) -> None:
        """Prepare the whole tree, if that is not done, and start it.

        If that fails or is cancelled, nothing of it is left started or prepared. Raises ServiceFailed, and
        ServiceMisuse if it is started already.
        """
        async with self._exclusively():
            self._must_be_down()
            await self._bring_up()

    async def take_down(self) -> list[ServiceFailed]:
        """Stop and release the whole tree, as far as it is up; return what failed, which has been logged."""
        return await self._take_down(stop=True, release=True)

    async def prepare(self) -> None:
        """Call the tree's ``prepare`` hooks; if one fails, release those prepared and raise ServiceFailed."""
        async with self._exclusively():
            if not self.is_prepared:
                await self._prepare()

    async def start(self) -> None:
        """Start the tree in order; if a service fails, stop those started, in reverse.

        What is not prepared is prepared before. Raises ServiceFailed, or ServiceMisuse if it is up already.
        """
        async with self._exclusively():
            self._must_be_down()
            await self._start()

    async def stop(self) -> list[ServiceFailed]:
        """Stop the tree in reverse order, each service after the next one has stopped; return what failed.

        A cancellation interrupts the hook that is being waited for and is raised when all is stopped.
        """
        return await self._take_down(stop=True)

    async def release(self) -> list[ServiceFailed]:
        """Release the tree in reverse order; return what failed. Raises ServiceMisuse if it is up."""
        if self.is_started:
            what = f"cannot release service {self.service.full_name}"
            raise ServiceMisuse(what, f"it is {self.state.value}", "stop it first")
        return await self._take_down(release=True)

    async def enter(self) -> None:
        """Bring up a tree whose failures cancel what the current task does from then on."""
        if self.parent is not None:
            what = f"cannot start service {self.service.full_name} by itself"
            raise ServiceMisuse(what, f"it is a part of {self.root.service.full_name}", "start that")
        await self.bring_up()
        self._user_scope = FailureScope()

    async def leave(self, error: BaseException | None) -> None:
        """Take it down again; raise the failure that cancelled the task, or one of the stop."""
        assert self._user_scope is not None
        failure, self._user_scope = self._user_scope.end(error), None
        failures = await self.take_down()
        if failure is not None:
            raise failure
        if error is None and failures:
            raise failures[0]

    @property
    def is_busy(self) -> bool:
        """Whether it is prepared, or somebody brings it up or down."""
        return self.is_prepared or self._operation is not None

    @property
    def root(self) -> "Lifecycle":
        """The top of the tree that it is in."""
        one: Lifecycle = self
        while one.parent is not None:
            one = one.parent
        return one

    def walk(self) -> "Iterator[Lifecycle]":
        """Yield this one and all below it, each before its children, in starting order."""
        yield self
        for child in self.children:
            yield from child.walk()

    # Up.

    @asynccontextmanager
    async def _exclusively(self) -> AsyncIterator[None]:
        """Wait until nobody else brings it up or down, and have others wait meanwhile.

        (An `asyncio.Lock` would do, were it not bound to the first event loop in which two met at it.)
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
        if self.is_started:
            what = f"cannot start service {self.service.full_name}"
            raise ServiceMisuse(what, f"it is {self.state.value} already")

    async def _bring_up(self) -> None:
        if not self.is_prepared:
            await self._prepare()
        try:
            await self._start()
        except (Exception, asyncio.CancelledError):
            await self._undo(release=True)
            raise

    async def _prepare(self) -> None:
        self.restarts = 0
        self._budget = None
        self._on_prepare()
        if "prepare" in self._overridden:
            await self._call("prepare", self.service.prepare())
        self.is_prepared = True
        self.state = PREPARED
        try:
            for child in self.children:  # the list itself, because a hook may add to it meanwhile
                if not child.is_prepared:
                    await child._prepare()
        except (Exception, asyncio.CancelledError):
            try:
                await self._undo(release=True)
            finally:
                self.state = FAILED
            raise

    async def _start(self) -> None:
        if departures := self._departures():
            await until_done(departures)
        if not self.is_prepared:
            await self._prepare()
        self.state = STARTING
        if "start" in self._overridden:
            await self._call("start", self.service.start())
        self.is_started = True
        if self.children and (error := await self._start_children()) is not None:
            try:
                await self._undo(stop=True)
            finally:
                self.state = FAILED
            raise error
        self.state = RUNNING
        if "run" in self._overridden or self.children:
            self._up_since = asyncio.get_running_loop().time()
        if "run" in self._overridden:
            self._body = _Body(self)
        self._log_state()

    async def _start_children(self) -> BaseException | None:
        """Start them in order; return what keeps the service from starting.

        That may be a child which was started before and fails meanwhile: nothing is started on top of what
        has failed for good.
        """
        error: BaseException | None = None
        scope = self._start_scope = FailureScope()
        try:
            for child in self.children:  # the list itself, because whoever is started may add to it
                if not child.is_started:
                    await child._start()
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        self._start_scope = None
        return scope.end(error) or error

    # Down.

    async def _take_down(self, *, stop: bool = False, release: bool = False) -> list[ServiceFailed]:
        shutdown = _Shutdown()
        await self._settle(shutdown)
        async with self._exclusively():
            return await self._undo(shutdown, stop=stop, release=release)

    async def _undo(
        self, shutdown: "_Shutdown | None" = None, *, stop: bool = False, release: bool = False
    ) -> list[ServiceFailed]:
        """Stop the tree if it is started, release it if it is prepared, as asked; return what failed."""
        shutdown = shutdown or _Shutdown()
        if stop and self.is_started:
            await self._stop(shutdown)
        if release and self.is_prepared:
            await self._release(shutdown)
        return shutdown.end()

    async def _settle(self, shutdown: "_Shutdown") -> None:
        """Give up restarting it, and wait until nobody brings it up or down."""
        while True:
            if self._recovery is not None and not self._recovery.is_over:
                work = self._recovery.give_up()
            elif self._operation is not None:
                work = self._operation.over
            else:
                return
            await shutdown.through(until_done([work]))

    async def _stop(self, shutdown: "_Shutdown") -> None:
        failed_before = len(shutdown.failures)
        self.state = STOPPING
        if work := self._give_up_work():
            await shutdown.through(until_done(work))
        body, self._body = self._body, None
        if body is not None:
            await shutdown.through(body.end(self.service.stop_timeout))
        for child in reversed(self.children):
            if child._recovery is not None or child._operation is not None:
                await child._settle(shutdown)
            if child.is_started:
                await child._stop(shutdown)
        self.is_started = False
        if "stop" in self._overridden:
            await shutdown.through(self._call("stop", self.service.stop()))
        self.state = FAILED if len(shutdown.failures) > failed_before or self.state is FAILED else STOPPED
        self._log_state()

    async def _release(self, shutdown: "_Shutdown") -> None:
        if departures := self._departures():
            await shutdown.through(until_done(departures))
        for child in reversed(self.children):
            if child.is_prepared:
                await child._release(shutdown)
        self.is_prepared = False
        if self.state is PREPARED:
            self.state = STOPPED
        if "release" in self._overridden:
            await shutdown.through(self._call("release", self.service.release()))

    def _give_up_work(self) -> "Sequence[asyncio.Future[None]]":
        """Give up what would bring up a part of it; return what to wait for."""
        return ()

    def _departures(self) -> "Sequence[asyncio.Future[None]]":
        """Return what to wait for until the children that are being removed are gone."""
        return ()

    # Hooks, and how they fail.

    async def _call(self, phase: str, hook: Coroutine[Any, Any, None]) -> None:
        """Run a hook to its end, or cancel it when the service's timeout for the phase is over.

        One that catches its cancellation and goes on is waited for. Raises ServiceFailed for whatever the
        hook raises, and the cancellation of this very task as it is.

        A hook that never waits cannot be interrupted, and needs no timer. Most are so, and the timer is two
        thirds of what a service with hooks costs; so it is armed when the hook waits for the first time.
        """
        seconds = self.service.start_timeout if phase in ("prepare", "start") else self.service.stop_timeout
        deadline = None
        try:
            if (awaited := next(hook.__await__(), _DONE)) is not _DONE:
                deadline = asyncio.timeout(seconds)
                async with deadline:
                    await _resume(hook, awaited)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            self.state = FAILED
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            is_late = deadline is not None and deadline.expired() and isinstance(error, TimeoutError)
            if seconds is not None and is_late:
                raise self.failure(phase, DeadlinePassed(seconds)) from None
            raise self.failure(phase, error) from error

    def failure(self, phase: str, error: BaseException) -> ServiceFailed:
        """Return the failure of this service for what one of its hooks raised, or let through.

        A cancellation that nobody asked for comes from something the hook had awaited. Let through as such
        it would end whatever task it reached, and be taken for the wish of whoever started that one.
        """
        if isinstance(error, asyncio.CancelledError):
            error = ApplicationFailed("something it waited for was cancelled")
        failure = ServiceFailed(self.service.full_name, phase, error)
        failure.__cause__ = error
        return failure

    def _log_state(self) -> None:
        """Log that it has started or stopped, if it has, and does something of its own."""
        if self._is_logged and self.state in _LOGGED and log.isEnabledFor(logging.INFO):
            log.info("%s %s", _LOGGED[self.state], self.service.full_name)

    def body_failed(self, failure: ServiceFailed) -> None:
        """Apply the restart policy to a service that failed: schedule a restart, or escalate."""
        if self._is_below_stopping():
            _report(failure, "it was being stopped")
        elif isinstance(failure.cause, SystemExit):
            self.root._end_by(failure)
        elif self._start_scope is not None:
            _report(failure, f"{self.service.full_name} does not start")
            self._start_scope.fail(failure)
        else:
            self.state = FAILED
            delay = self._restart_delay(failed=True)
            if delay is not None:
                _report(failure, f"it is started again in {delay:.1f} s")
                self._schedule_restart(delay)
            elif self.parent is not None:
                if self.restarts:
                    times = "1 restart" if self.restarts == 1 else f"{self.restarts} restarts"
                    log.error("service %s is given up after %s", self.service.full_name, times)
                self.parent.body_failed(failure)
            else:
                _report(failure)
                self._end_by(failure)

    def body_ended(self) -> None:
        """Apply the restart policy to a service whose body ended without a failure."""
        if self._is_below_stopping():
            return
        delay = self._restart_delay(failed=False)
        restart = self.service.restart
        if delay is not None:
            log.info("service %s ended; it is started again in %.1f s", self.service.full_name, delay)
            self._schedule_restart(delay)
        elif restart.when == "always":
            limit = f"it keeps ending: {restart.limit} restarts within {restart.within:g} s"
            self.body_failed(self.failure("run", ApplicationFailed(limit)))

    def _is_below_stopping(self) -> bool:
        return self.state is STOPPING or (self.parent is not None and self.parent._is_below_stopping())

    def _end_by(self, failure: ServiceFailed) -> None:
        """Take a failure that nothing could mend; called on a root only."""
        scope = self._start_scope or self._user_scope
        if not self._on_failure(failure) and scope is not None:
            scope.fail(failure)

    def _restart_delay(self, *, failed: bool) -> float | None:
        if self._budget is None:
            self._budget = RestartBudget(self.service.restart)
        now = asyncio.get_running_loop().time()
        ran = now - self._up_since if self.is_started else 0.0  # else it failed to start
        return self._budget.next_delay(failed=failed, now=now, ran=ran)

    def _schedule_restart(self, delay: float) -> None:
        self.restarts += 1
        if self.parent is not None and self.parent.strategy() != "one_for_one":
            self.parent.schedule_restart_of(self, delay)
        elif self._recovery is None or self._recovery.is_over:
            self._recovery = _Recovery(self, delay)
        else:
            self._recovery.add(self, delay)

    async def _restart(self) -> bool:
        """Start it after it was stopped for that; return whether it went well. What failed is seen to."""
        try:
            await self._start()
        except ServiceFailed as failure:
            self.body_failed(failure)
            return False
        return True


class GroupLifecycle(Lifecycle):
    """The life of a service that has others below it, which come and go also while it runs.

    ``strategy`` returns which children are restarted when one fails.
    """

    def __init__(
        self,
        service: Hooks,
        overridden: frozenset[str],
        *,
        strategy: Callable[[], Strategy],
        on_prepare: Callable[[], object] = lambda: None,
        on_failure: Callable[[ServiceFailed], bool] = lambda _: False,
    ) -> None:
        super().__init__(service, overridden, on_prepare=on_prepare, on_failure=on_failure)
        self.strategy = strategy
        self.by_name: dict[str, Lifecycle] = {}
        self._additions: dict[str, _Addition] = {}  # by the child's name
        self._removals: list[Operation] = []
        self._group_recovery: _Recovery | None = None  # of the children that are restarted together

    def add(self, child: Lifecycle) -> Awaitable[None]:
        """Put a service behind the others, and start it if this one runs; see `MultiService.add`."""
        name = child.service.name or self._free_name(child.service.default_name())
        if (refusal := self._why_not(child, name)) is not None:
            raise ServiceMisuse(f"cannot add {child.service.name!r} to {self.service.full_name}", *refusal)
        if not child.service.name:
            child.service.name = name
        child.parent = self
        self.children.append(child)
        self.by_name[name] = child
        if self.state is not RUNNING:
            return _Added()
        self._additions[name] = addition = _Addition(self, child)
        return addition

    async def remove(self, child: Lifecycle) -> None:
        """Stop a service, release it and take it out; see `MultiService.remove`."""
        if child.parent is not self:
            what = f"cannot remove {child.service.name!r} from {self.service.full_name}"
            raise ServiceMisuse(what, "it is not a child of it")
        if self.state in (PREPARED, STARTING, STOPPING):
            what = f"cannot remove {child.service.full_name}"
            raise ServiceMisuse(what, f"{self.service.full_name} is {self.state.value}")
        removal = Operation()
        self._removals.append(removal)
        try:
            await self._take_out(child)
        finally:
            self._removals.remove(removal)
            removal.end()

    def _why_not(self, child: Lifecycle, name: str) -> tuple[str, ...] | None:
        """Return why a service cannot be added, and what to do about it; None if it can."""
        if child.parent is not None:
            holder = child.parent.service.full_name
            return f"it is a child of {holder} already", "remove it there first, or make another"
        if child is self.root:
            return ("a service cannot be below itself",)
        if child.is_busy:
            return f"it is {child.state.value} by itself", "stop it first"
        if self.state is STOPPING:
            return (f"{self.service.full_name} is stopping",)
        if name in self.by_name:
            taken = f"it has a child of that name, {self.by_name[name].service!r}"
            return taken, "give one of them another name"
        return None

    def _free_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.by_name:
            number += 1
            name = f"{wanted}-{number}"
        return name

    async def _take_out(self, child: Lifecycle) -> None:
        if child.service.name in self._additions:
            await until_done([self._additions[child.service.name].give_up()])
        shutdown = _Shutdown()
        await child._settle(shutdown)
        async with child._exclusively():
            if child.parent is self:
                try:
                    await child._undo(shutdown, stop=True, release=True)
                finally:
                    self.disown(child)

    def disown(self, child: Lifecycle) -> None:
        """Forget a child, which is down."""
        del self.by_name[child.service.name]
        self.children.remove(child)
        child.parent = None
        _mark([child], restarting=False)

    def added(self, child: Lifecycle, *, is_up: bool) -> None:
        """Hear that a service that was added while this one runs is as far as it gets."""
        del self._additions[child.service.name]
        if not is_up:
            self.disown(child)

    def _give_up_work(self) -> "Sequence[asyncio.Future[None]]":
        work = [addition.give_up() for addition in self._additions.values()]
        if self._group_recovery is not None:
            work.append(self._group_recovery.give_up())
        return [*work, *self._departures()]

    def _departures(self) -> "Sequence[asyncio.Future[None]]":
        return [removal.over for removal in self._removals]

    def schedule_restart_of(self, child: Lifecycle, delay: float) -> None:
        """Restart a child after some seconds, together with those that the strategy names."""
        if self._group_recovery is None or self._group_recovery.is_over:
            self._group_recovery = _Recovery(child, delay, self)
        else:
            self._group_recovery.add(child, delay)

    def restarted_with(self, failed: Sequence[Lifecycle]) -> Sequence[Lifecycle]:
        """Return the children that are restarted together when those fail."""
        if self.strategy() == "one_for_all":
            return tuple(self.children)
        return tuple(dropwhile(lambda child: child not in failed, self.children))

    async def until_children_are_started(self) -> None:
        """Wait while they are being started."""
        if self._start_scope is not None:
            await self._start_scope.over.wait()


class _Shutdown:
    """What comes of a way down, which goes to its end: the failures, and a cancellation of the task."""

    def __init__(self) -> None:
        self.failures: list[ServiceFailed] = []
        self._cancelled: asyncio.CancelledError | None = None

    async def through(self, step: Awaitable[None]) -> None:
        """Await a step. Its failure is logged and collected; a cancellation interrupts it and is kept."""
        try:
            await step
        except asyncio.CancelledError as error:
            self._cancelled = error
        except ServiceFailed as failure:
            _report(failure)
            self.failures.append(failure)

    def end(self) -> list[ServiceFailed]:
        """Raise the cancellation if there was one; return the failures."""
        if self._cancelled is not None:
            raise self._cancelled
        return self.failures


class _Body:
    """One life of a service's ``run``, in the one task that a service may cost."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._is_ending = False
        name = lifecycle.service.full_name
        self._task = asyncio.get_running_loop().create_task(self._live(), name=name)

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
            raise self._lifecycle.failure("run", DeadlinePassed(seconds))
        if not self._task.cancelled() and (failure := self._task.result()) is not None:
            raise failure

    async def _live(self) -> ServiceFailed | None:
        """Run the body and see to how it ends; return its failure if that is for `end` to tell."""
        failure = None
        try:
            await self._lifecycle.service.run()
        except asyncio.CancelledError as error:
            if self._is_ending:
                raise
            failure = self._lifecycle.failure("run", error)
        except (Exception, SystemExit) as error:
            failure = self._lifecycle.failure("run", error)
        if self._is_ending:
            return failure
        if failure is None:
            self._lifecycle.body_ended()
        else:
            self._lifecycle.body_failed(failure)
        return None


class _Addition:
    """A service that is being brought up to where its parent is; to be awaited, or not.

    If it does not get there it is taken out again, and whoever awaits this is told; if nobody does, the
    log is.
    """

    def __init__(self, parent: GroupLifecycle, child: Lifecycle) -> None:
        self._parent = parent
        self._child = child
        self._path = child.service.full_name
        self._is_given_up = False
        self._is_awaited = False
        self._operation = child._operation = Operation()
        self._task = asyncio.get_running_loop().create_task(child._bring_up())
        self._operation.owner = self._task
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
        self._child._operation = None
        self._operation.end()
        error = None if task.cancelled() else task.exception()
        self._parent.added(self._child, is_up=not task.cancelled() and error is None)
        if error is not None and not self._is_awaited:
            what = "a service added to %s did not start: %s"
            log.error(what, self._parent.service.full_name, reason(error), exc_info=error)


class _Added:
    """What is awaited when there is nothing to wait for, with or without a running event loop."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


class _Recovery:
    """Restarts a service, or those children of a group that are restarted together.

    It is one task for the whole group, so that a failure in the middle of it is seen to after it and not
    at once.
    """

    def __init__(self, failed: Lifecycle, delay: float, group: GroupLifecycle | None = None) -> None:
        self._group = group
        self._failed = [(failed, delay)]
        self._is_stopping = False
        self._is_given_up = False
        self._task = asyncio.get_running_loop().create_task(self._work())

    @property
    def is_over(self) -> bool:
        """Whether it has done what there was to do, or was given up."""
        return self._task.done()

    def add(self, failed: Lifecycle, delay: float) -> None:
        """Restart a service, too, after that many seconds."""
        self._failed.append((failed, delay))

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
        if self._group is not None:
            await self._group.until_children_are_started()
        while self._failed:
            affected = self._affected()
            delay = max(delay for _, delay in self._failed)
            _mark(affected, restarting=True)
            try:
                await self._stop(affected)
                if self._is_given_up:
                    return
                self._forget(affected)
                await asyncio.sleep(delay)
                await self._start(affected)
            finally:
                _mark(affected, restarting=False)

    def _affected(self) -> Sequence[Lifecycle]:
        failed = [each for each, _ in self._failed]
        return failed[:1] if self._group is None else self._group.restarted_with(failed)

    def _forget(self, affected: Sequence[Lifecycle]) -> None:
        """Keep those that failed meanwhile and were not stopped with the others."""
        self._failed = [
            (each, delay)
            for each, delay in self._failed
            if each not in affected and each.parent is self._group
        ]

    async def _stop(self, affected: Sequence[Lifecycle]) -> None:
        self._is_stopping = True
        for each in reversed(affected):
            async with each._exclusively():
                await each._undo(stop=True)
        self._is_stopping = False

    async def _start(self, affected: Sequence[Lifecycle]) -> None:
        for each in affected:
            async with each._exclusively():
                if self._group is not None and each.parent is not self._group:
                    continue  # it was removed meanwhile
                if not await each._restart():
                    return
            _mark([each], restarting=False)


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], awaited: object) -> Generator[Any, Any, None]:
    """Go on with a coroutine that is suspended on ``awaited``, as ``await`` would have done (PEP 380)."""
    while True:
        try:
            try:
                sent = yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(sent)
        except StopIteration:
            return


def _mark(lifecycles: Sequence[Lifecycle], *, restarting: bool) -> None:
    for lifecycle in lifecycles:
        for each in lifecycle.walk():
            each.is_restarting = restarting


def _report(failure: ServiceFailed, consequence: str = "") -> None:
    """Log a failure that is not raised to anyone, with what is done about it."""
    says_all = isinstance(failure.cause, TamedError)
    text = f"{failure}; {consequence}" if consequence else f"{failure}"
    log.error("%s", text, exc_info=None if says_all else failure.cause)


def _report_late(task: "asyncio.Task[ServiceFailed | None]") -> None:
    if not task.cancelled() and (failure := task.result()) is not None:
        _report(failure)
