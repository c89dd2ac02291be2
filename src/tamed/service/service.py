"""A service: a thing with a name that starts and stops; and many services as one."""

import inspect
import re
from collections.abc import Awaitable, Iterator
from types import EllipsisType, TracebackType
from typing import ClassVar, Self, cast, get_args

from tamed.errors import ServiceMisuse
from tamed.service.group import GroupLifecycle, Strategy
from tamed.service.lifecycle import Lifecycle, State
from tamed.service.restart import Restart

__all__ = ["MultiService", "Service"]

_HOOKS = ("prepare", "start", "run", "stop", "release")


class Service:
    """A thing with a name that starts and stops.

    A subclass overrides any of five hooks, all coroutine functions; it never calls up to this class, and
    need not call ``super().__init__()`` either. The framework keeps the state and calls the hooks:

    - ``prepare`` acquires what needs privilege or must not be lost by a restart (a listening socket);
      ``release`` undoes it, once for each ``prepare`` that returned;
    - ``start`` makes the service ready: it is when ``start`` returns; ``stop`` undoes it, once for each
      ``start`` that returned;
    - ``run`` is an optional body that lives while the service runs: it is begun after ``start`` and cancelled
      before ``stop``. If it raises, or ends, the ``restart`` policy says what happens.

    A hook that raises fails its phase: what was started before is stopped in reverse order, and the
    failure is raised as `ServiceFailed` with the service's path. A service may be started again after it
    was stopped.

    ``start_timeout`` and ``stop_timeout`` are seconds for each hook (None: no deadline); a subclass may
    set them, and ``restart``, as class attributes. The ``name`` stays as it is once there is a ``parent``.

    ``async with service:`` runs any service that has no parent, in a program or in a test. Inside, it is
    ready. If it fails past its policy the body is cancelled and the failure raised, as in
    `asyncio.TaskGroup`.
    """

    restart: Restart = Restart()
    start_timeout: float | None = 60.0
    stop_timeout: float | None = 30.0
    name: str = ""

    # Made when it is first asked for, so that a subclass need not call up to `__init__`.
    _lifecycle: Lifecycle | None = None
    _overridden: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls._overridden = frozenset(
            hook for hook in _HOOKS if getattr(cls, hook) is not getattr(Service, hook)
        )
        for hook in _HOOKS:
            function = getattr(cls, hook)
            if inspect.isfunction(function) and not inspect.iscoroutinefunction(function):
                raise TypeError(
                    f"{cls.__qualname__}.{hook} must be a coroutine function: write 'async def {hook}'"
                )

    def __init__(
        self,
        name: str | None = None,
        *,
        restart: Restart | None = None,
        start_timeout: float | EllipsisType | None = ...,  # not given, which None ("no deadline") is not
        stop_timeout: float | EllipsisType | None = ...,
    ) -> None:
        if name is not None:
            self.name = name
        if restart is not None:
            self.restart = restart
        if start_timeout is not ...:
            self.start_timeout = start_timeout
        if stop_timeout is not ...:
            self.stop_timeout = stop_timeout

    async def prepare(self) -> None:
        """Acquire what needs privilege, or must outlive a restart. Undone by `release`."""

    async def start(self) -> None:
        """Become ready: the service is, when this returns. Undone by `stop`."""

    async def run(self) -> None:
        """Live while the service runs; cancelled before `stop` is called."""

    async def stop(self) -> None:
        """Undo `start`. ``self.restarting`` tells whether the service is to be started again at once."""

    async def release(self) -> None:
        """Undo `prepare`."""

    @property
    def summary(self) -> str:
        """What an operator should see beside the name, on one line: a server's endpoints, for example."""
        return ""

    @property
    def lifecycle(self) -> Lifecycle:
        """The life of this service: how a program of its own brings a service up and down."""
        if self._lifecycle is None:
            self._lifecycle = self._make_lifecycle()
        return self._lifecycle

    def _make_lifecycle(self) -> Lifecycle:
        return Lifecycle(self, self._overridden)

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return State.IDLE if self._lifecycle is None else self._lifecycle.state

    @property
    def restarting(self) -> bool:
        """Whether it is stopped to be started again."""
        return self._lifecycle is not None and self._lifecycle.is_restarting

    @property
    def restarts(self) -> int:
        """How often its policy has restarted it since it was prepared."""
        return 0 if self._lifecycle is None else self._lifecycle.restarts

    @property
    def parent(self) -> "MultiService | None":
        """The service that this one is a part of."""
        above = None if self._lifecycle is None else self._lifecycle.parent
        return None if above is None else cast("MultiService", above.service)

    @property
    def root_service(self) -> "Service":
        """The service at the top of the tree that this one is in."""
        return cast("Service", self.lifecycle.root.service)

    @property
    def full_name(self) -> str:
        """The names from below the root down to this service, joined by slashes; a root's is its name."""
        names = []
        service: Service = self
        while (parent := service.parent) is not None:
            names.append(service.name)
            service = parent
        return "/".join(reversed(names)) or self.name or self.default_name()

    @property
    def children(self) -> "tuple[Service, ...]":
        """The services directly below this one, in starting order."""
        return tuple(cast("Service", each.service) for each in self.lifecycle.children)

    def default_name(self) -> str:
        """Return the name a service gets if it has none: ``StreamServer`` → ``stream-server``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(self).__name__.strip("_")).lower()

    def walk(self) -> "Iterator[Service]":
        """Yield this service and all below it, each before its children, in starting order."""
        return (cast("Service", each.service) for each in self.lifecycle.walk())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.full_name} {self.state.value}>"

    async def __aenter__(self) -> Self:
        await self.lifecycle.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.lifecycle.leave(error)


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

    @property
    def lifecycle(self) -> GroupLifecycle:
        """The life of this service and of those below it."""
        return cast("GroupLifecycle", super().lifecycle)

    def _make_lifecycle(self) -> GroupLifecycle:
        return GroupLifecycle(self, self._overridden, strategy=lambda: self.strategy)

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
        return self.lifecycle.add(child.lifecycle)

    async def remove(self, child: Service) -> None:
        """Stop a child if it runs, release it, and take it out.

        Its own ``run`` may ask for this, and goes on afterwards. Raises ServiceMisuse if it is not one of
        ours, or if the multi-service is on its way up or down.
        """
        await self.lifecycle.remove(child.lifecycle)

    def __getitem__(self, name: str) -> Service:
        return cast("Service", self.lifecycle.by_name[name].service)

    def __contains__(self, child: object) -> bool:
        return child.parent is self if isinstance(child, Service) else child in self.lifecycle.by_name

    def __iter__(self) -> Iterator[Service]:
        return iter(self.children)

    def __len__(self) -> int:
        return len(self.lifecycle.children)
