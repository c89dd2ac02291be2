"""Many services as one: started in order, stopped in reverse."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from itertools import dropwhile
from typing import Literal, Self, get_args

from tamed.errors import ServiceMisuse
from tamed.service._down import Descent
from tamed.service._joining import JOINED, Joining
from tamed.service._recovery import Recovery
from tamed.service._restart import Restart
from tamed.service._service import Service
from tamed.service._state import PREPARED, RUNNING, STARTING, STOPPING
from tamed.service._turn import Work, turn, until_done

__all__ = ["MultiService", "Strategy"]

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


class MultiService(Service):
    """Many services as one.

    Children are prepared and started in the order in which they were added, each after the one before it
    is ready, and stopped in reverse. The hooks of a subclass come before its children's on the way up and
    after them on the way down.

    ``strategy`` says which children are restarted when one fails and its restart policy allows it:

    - ``"one_for_one"``: that child;
    - ``"one_for_all"``: all children;
    - ``"rest_for_one"``: that child and those added after it.

    A child that fails past its policy fails the multi-service, whose own ``restart`` policy is asked next.
    """

    strategy: Strategy = "one_for_one"

    _may_have_children = True

    _children: list[Service]
    _children_by_name: dict[str, Service]
    _joining: dict[str, Joining]  # by the child's name
    _leaving: list[Work]
    _group_recovery: Recovery | None = None  # of the children that are restarted together

    def __new__(cls, *_args: object, **_options: object) -> Self:
        """Make what the framework keeps, so that a subclass need not call up to ``__init__``."""
        self = super().__new__(cls)
        self._children = []
        self._children_by_name = {}
        self._joining = {}
        self._leaving = []
        return self

    def __init__(
        self,
        name: str | None = None,
        *children: Service,
        strategy: Strategy = "one_for_one",
        restart: Restart | None = None,
    ) -> None:
        super().__init__(name, restart=restart)
        if strategy not in get_args(Strategy):
            raise ServiceMisuse(f"strategy {strategy!r}", f"expected one of {', '.join(get_args(Strategy))}")
        self.strategy = strategy
        for child in children:
            self.add(child)

    def add(self, child: Service) -> Awaitable[None]:
        """Add a service behind the others.

        A running multi-service starts it at once, and one that is starting in its turn. The result may be
        awaited: it is done when the child is as far as its parent, and raises what made it fail; a child
        that fails to start is taken out again.

        A child without a name gets one from its class, with a number if that is taken. Raises
        ServiceMisuse if its name is taken, if it has a parent or runs by itself, or if the multi-service
        is stopping.
        """
        name = child.name or self._free_child_name(child.default_name())
        state = self.state
        if (
            child.parent is not None
            or child._needs_release
            or child._turn_taken is not None
            or state is STOPPING
            or (child._may_have_children and child is self.root_service)
            or self._children_by_name.setdefault(name, child) is not child
        ):
            raise self._refusal(child)
        if not child.name:
            child.name = name
        child.parent = self
        self._children.append(child)
        return JOINED if state is not RUNNING else Joining(self, child)

    async def remove(self, child: Service) -> None:
        """Stop a child if it runs, release it, and take it out.

        Its own ``run`` may ask for this, and goes on afterwards. Raises ServiceMisuse if it is not one of
        ours, or if the multi-service is on its way up or down.
        """
        if child.parent is not self:
            raise ServiceMisuse(
                f"cannot remove {child.name!r} from {self.full_name}", "it is not a child of it"
            )
        if self.state in (PREPARED, STARTING, STOPPING):
            raise ServiceMisuse(f"cannot remove {child.full_name}", f"{self.full_name} is {self.state.value}")
        departure = Work()
        self._leaving.append(departure)
        try:
            await self._take_out(child)
        finally:
            self._leaving.remove(departure)
            departure.end()

    def __getitem__(self, name: str) -> Service:
        return self._children_by_name[name]

    def __contains__(self, child: object) -> bool:
        return child.parent is self if isinstance(child, Service) else child in self._children_by_name

    def __iter__(self) -> Iterator[Service]:
        return iter(tuple(self._children))

    def __len__(self) -> int:
        return len(self._children)

    def _refusal(self, child: Service) -> ServiceMisuse:
        what = f"cannot add {child.name!r} to {self.full_name}"
        if child.parent is not None:
            holder = child.parent.full_name
            remedy = "remove it there first, or make another"
            return ServiceMisuse(what, f"it is a child of {holder} already", remedy)
        if child is self.root_service:
            return ServiceMisuse(what, "a service cannot be below itself")
        if child._needs_release or child._turn_taken is not None:
            return ServiceMisuse(what, f"it is {child.state.value} by itself", "stop it first")
        if self.state is STOPPING:
            return ServiceMisuse(what, f"{self.full_name} is stopping")
        taken = f"it has a child of that name, {self._children_by_name[child.name]!r}"
        return ServiceMisuse(what, taken, "give one of them another name")

    def _disown_child(self, child: Service) -> None:
        del self._children_by_name[child.name]
        # By identity: services may be dataclasses, which are equal when their fields are.
        del self._children[next(index for index, one in enumerate(self._children) if one is child)]
        child.parent = None
        for service in child.walk():
            service.restarting = False

    def _free_child_name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._children_by_name:
            number += 1
            name = f"{wanted}-{number}"
        return name

    def _give_up_work(self) -> Sequence[asyncio.Future[None]]:
        work = [joining.give_up() for joining in self._joining.values()]
        if self._group_recovery is not None:
            work.append(self._group_recovery.give_up())
        return [*work, *self._departures()]

    def _departures(self) -> Sequence[asyncio.Future[None]]:
        return [departure.over for departure in self._leaving]

    async def _take_out(self, child: Service) -> None:
        if child.name in self._joining:
            await until_done([self._joining[child.name].give_up()])
        descent = Descent()
        await descent.free(child)
        async with turn(child):
            if child.parent is self:
                try:
                    await descent.walk(child, stop=True, release=True)
                finally:
                    self._disown_child(child)

    def _restarted_with(self, failed: Sequence[Service]) -> Sequence[Service]:
        """Return the children that are restarted together when those fail."""
        if self.strategy == "one_for_all":
            return tuple(self._children)
        ids = {id(service) for service in failed}
        return tuple(dropwhile(lambda child: id(child) not in ids, self._children))
