"""The life of a service with children, which may be added and removed while it runs."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from itertools import dropwhile
from typing import Any, Literal

from tamed.errors import ApplicationFailed, ServiceMisuse, reason
from tamed.log.logger import own_logger
from tamed.service._tasks import Hooks, Operation, Recovery, Shutdown, is_cancelled, until_done
from tamed.service.lifecycle import PREPARED, RUNNING, STARTING, STOPPING, Lifecycle

__all__ = ["GroupLifecycle", "Strategy"]

log = own_logger("tamed.service")

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


class GroupLifecycle(Lifecycle):
    """The life of a service with children, which may be added and removed while it runs.

    ``strategy`` returns the current `MultiService.strategy`.
    """

    def __init__(self, service: Hooks, overridden: frozenset[str], strategy: Callable[[], Strategy]) -> None:
        super().__init__(service, overridden)
        self.strategy = strategy
        self.by_name: dict[str, Lifecycle] = {}
        self._additions: dict[str, _Addition] = {}  # by the child's name
        self._removals: list[Operation] = []
        self._group_recovery: _GroupRecovery | None = None  # the common restart of children

    def add(self, child: Lifecycle) -> Awaitable[None]:
        """Append a service, and start it if this one runs; see `MultiService.add`."""
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
        """Stop a service, release it and remove it from the children; see `MultiService.remove`."""
        if child.parent is not self:
            what = f"cannot remove {child.service.name!r} from {self.service.full_name}"
            raise ServiceMisuse(what, "it is not a child of that service")
        if self.state in (PREPARED, STARTING, STOPPING):
            what = f"cannot remove {child.service.full_name}"
            raise ServiceMisuse(what, f"{self.service.full_name} is {self.state.value}")
        removal = Operation()
        self._removals.append(removal)
        try:
            await self._remove(child)
        finally:
            self._removals.remove(removal)
            removal.end()

    def _why_not(self, child: Lifecycle, name: str) -> tuple[str, ...] | None:
        """Return the reason why a service cannot be added, and the remedy; None if it can be added."""
        if child.parent is not None:
            holder = child.parent.service.full_name
            return f"it is a child of {holder} already", "remove it there first, or create another"
        if child is self.root:
            return ("a service cannot be below itself",)
        if child.is_busy:
            return f"it is {child.state.value} on its own", "stop it first"
        if self.state is STOPPING:
            return (f"{self.service.full_name} is stopping",)
        if "/" in name:
            return "a slash separates the names in a path", "use another character, such as - or :"
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

    async def _remove(self, child: Lifecycle) -> None:
        if child.service.name in self._additions:
            await until_done([self._additions[child.service.name].give_up()])
        shutdown = Shutdown()
        await child.settle(shutdown)
        async with child.exclusively():
            if child.parent is self:
                try:
                    await child.undo(shutdown, stop=True, release=True)
                finally:
                    self.disown(child)

    def disown(self, child: Lifecycle) -> None:
        """Remove a stopped and released child."""
        del self.by_name[child.service.name]
        self.children.remove(child)
        child.parent = None
        child.mark_restarting(restarting=False)

    def added(self, child: Lifecycle, *, is_up: bool) -> None:
        """Record the end of an addition: ``is_up`` is whether the child has reached this service's state."""
        del self._additions[child.service.name]
        if not is_up:
            self.disown(child)

    def _give_up_work(self) -> "Sequence[asyncio.Future[None]]":
        work = [addition.give_up() for addition in self._additions.values()]
        if self._group_recovery is not None:
            work.append(self._group_recovery.give_up())
        return [*work, *self._pending_removals()]

    def _pending_removals(self) -> "Sequence[asyncio.Future[None]]":
        return [removal.over for removal in self._removals]

    def recover_child(self, child: Lifecycle, delay: float) -> None:
        """Restart a child after ``delay`` seconds, together with those that the strategy selects."""
        if self.strategy() == "one_for_one":
            child.recover(delay)
        elif self._group_recovery is None or self._group_recovery.is_over:
            self._group_recovery = _GroupRecovery(self, child, delay)
        else:
            self._group_recovery.add(child, delay)

    def restarted_with(self, failed: Sequence[Lifecycle]) -> Sequence[Lifecycle]:
        """Return the children that are restarted together when the ``failed`` ones fail."""
        if self.strategy() == "one_for_all":
            return tuple(self.children)
        return tuple(dropwhile(lambda child: child not in failed, self.children))

    async def until_children_are_started(self) -> None:
        """Wait until the pending start of children is done."""
        if self._start_scope is not None:
            await self._start_scope.over.wait()


class _Addition:
    """The pending addition of a child, which brings it to its parent's state. It may be awaited.

    If it fails, the child is removed again, and the error is raised in the awaiting task, or logged if there
    is none.
    """

    def __init__(self, parent: GroupLifecycle, child: Lifecycle) -> None:
        self._parent = parent
        self._child = child
        self._path = child.service.full_name
        self._is_given_up = False
        self._is_awaited = False
        self._task = child.bring_up_soon()
        self._task.add_done_callback(self._remove_failed)

    def __await__(self) -> Generator[Any, None, None]:
        self._is_awaited = True
        try:
            yield from self._task
        except asyncio.CancelledError:
            if self._is_given_up and not is_cancelled():
                what = f"service {self._path} was not started"
                raise ApplicationFailed(what, "it was stopped first") from None
            raise

    def give_up(self) -> "asyncio.Future[None]":
        """Cancel the addition, which rolls it back; return a future that is done when it is over."""
        if not self._is_given_up:
            self._is_given_up = True
            self._task.cancel()
        return self._task

    def _remove_failed(self, task: "asyncio.Task[None]") -> None:
        """Remove the child if it could not be started."""
        error = None if task.cancelled() else task.exception()
        self._parent.added(self._child, is_up=not task.cancelled() and error is None)
        if error is not None and not self._is_awaited:
            what = "a service added to %s did not start: %s"
            log.error(what, self._parent.service.full_name, reason(error), exc_info=error)


class _Added:
    """An awaitable that is already done, with or without a running event loop."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


class _GroupRecovery(Recovery[Lifecycle]):
    """Restarts the children of a group that its strategy restarts together."""

    def __init__(self, group: GroupLifecycle, failed: Lifecycle, delay: float) -> None:
        super().__init__(failed, delay)
        self._group = group

    async def until_ready(self) -> None:
        """Wait until the group has started its children."""
        await self._group.until_children_are_started()

    def affected(self, failed: Sequence[Lifecycle]) -> Sequence[Lifecycle]:
        """Return the children that the strategy selects."""
        return self._group.restarted_with(failed)

    def includes(self, service: Lifecycle) -> bool:
        """Return whether a service is still a child of the group."""
        return service.parent is self._group
