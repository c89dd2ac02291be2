"""Services, and multi-services: groups of services that start and stop as one."""

import inspect
import re
from collections.abc import Awaitable, Iterator
from functools import cached_property
from types import EllipsisType, TracebackType
from typing import ClassVar, Self, cast, get_args

from tamed._os.text import noun
from tamed.errors import ServiceMisuse
from tamed.service.group import GroupLifecycle, Strategy
from tamed.service.lifecycle import Lifecycle, State
from tamed.service.restart import Restart
from tamed.service.role import Lease, Scope, check_scope

__all__ = ["MultiService", "Only", "Service", "require_function"]

_HOOKS = ("prepare", "start", "run", "stop", "release", "check")


def _misspelt(hook: str) -> set[str]:
    """Return likely misspellings of a hook: two neighbours swapped, or, in a long name, a letter missing.

    A misspelt hook would never be called. No other method is likely to have one of these names.
    """
    places = range(len(hook) - 1)
    swapped = {hook[:at] + hook[at + 1] + hook[at] + hook[at + 2 :] for at in places}
    shorter = {hook[:at] + hook[at + 1 :] for at in range(len(hook))} if len(hook) > len("start") else set()
    return swapped | shorter


_MISSPELT = {word: hook for hook in _HOOKS for word in _misspelt(hook) - {hook}}


class Service:
    """An object with a name that starts and stops.

    A subclass overrides any of six hooks, all coroutine functions. It does not call the hooks of this class,
    and need not call ``super().__init__()``. The framework keeps the state and calls the hooks:

    - ``prepare`` acquires resources that need privileges or must survive a restart (a listening socket);
      ``release`` undoes it, once for each ``prepare`` that returned;
    - ``start`` makes the service ready, which it is when ``start`` returns; ``stop`` undoes it, once for each
      ``start`` that returned;
    - ``run`` is an optional body: it begins after ``start`` and is cancelled before ``stop``. If it raises or
      returns, the ``restart`` policy is applied;
    - ``check`` reports, while the service runs, whether it can do its work. It is called every
      ``check_interval`` seconds, and fails after ``check_timeout`` seconds. A failing check is shown, and
      the daemon is degraded. With ``check_gates_readiness`` the daemon is then not ready, and load balancers
      send no clients. Set it only for failures of this machine alone: a dependency shared by all instances
      would take all of them out.

    Another hook that raises fails its phase: the services started before are stopped in reverse order, and
    the failure is raised as `ServiceFailed` with the service's path. A service may be started again after it
    was stopped.

    ``start_timeout`` and ``stop_timeout`` are seconds for each hook (None: no deadline); a subclass may
    set them, and ``restart``, as class attributes. Do not change ``name`` once the service has a parent.

    ``only = "host"`` lets the service run in one worker of the daemon at a time, although each worker
    prepares it: the others are on standby, and one of them takes over after it has ended. A process without
    a supervisor simply runs it. ``only = "cluster"`` does the same for a fleet of machines, to which an
    engine grants the role (``--cluster``); `lease` has the token by which others can reject a former holder.

    ``async with service:`` runs any service that has no parent, in a program or in a test. Inside, it is
    ready. If it fails and its policy allows no restart, the block is cancelled and the failure raised, as in
    `asyncio.TaskGroup`.
    """

    restart: Restart = Restart()
    only: Scope = ""
    start_timeout: float | None = 60.0
    stop_timeout: float | None = 30.0
    check_interval: float = 10.0
    check_timeout: float = 5.0
    check_gates_readiness: bool = False
    name: str = ""

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
        for name in vars(cls):
            if name in _MISSPELT and inspect.isfunction(vars(cls)[name]):
                raise TypeError(f"{cls.__qualname__}.{name} is not a hook: did you mean {_MISSPELT[name]!r}?")

    def __init__(
        self,
        name: str | None = None,
        *,
        restart: Restart | None = None,
        only: Scope | None = None,
        start_timeout: float | EllipsisType | None = ...,  # not given; None is "no deadline"
        stop_timeout: float | EllipsisType | None = ...,
    ) -> None:
        if not isinstance(name, str | None):  # for callers without a type checker
            what = f"{type(self).__name__}: the name is {noun(type(name).__name__)}, not a text"
            raise ServiceMisuse(what, remedy=f"write {type(self).__name__}('NAME', ...)")
        if name is not None:
            self.name = name
        if restart is not None:
            self.restart = restart
        if only is not None:
            check_scope(only, type(self).__name__)
            self.only = only
        if start_timeout is not ...:
            self.start_timeout = start_timeout
        if stop_timeout is not ...:
            self.stop_timeout = stop_timeout

    async def prepare(self) -> None:
        """Acquire resources that need privileges or must survive a restart. Undone by `release`."""

    async def start(self) -> None:
        """Become ready: the service is ready when this returns. Undone by `stop`."""

    async def run(self) -> None:
        """Do the service's work while it runs; cancelled before `stop` is called."""

    async def stop(self) -> None:
        """Undo `start`. ``self.restarting`` is true if the service will be started again at once."""

    async def release(self) -> None:
        """Undo `prepare`."""

    async def check(self) -> str | None:
        """Return None if the service can do its work; otherwise raise, or return the reason."""
        return None

    @property
    def summary(self) -> str:
        """One line for an operator, shown beside the name: a server's endpoints, for example."""
        return ""

    # Created on first use, so that a subclass need not call `super().__init__()`.
    @cached_property
    def lifecycle(self) -> Lifecycle:
        """The lifecycle of this service, for programs that start and stop services themselves."""
        return Lifecycle(self, self._overridden)

    @property
    def state(self) -> State:
        """The state of the service."""
        return self.lifecycle.state

    @property
    def restarting(self) -> bool:
        """Whether it is being stopped for a restart."""
        return self.lifecycle.is_restarting

    @property
    def lease(self) -> Lease | None:
        """The lease of the role that this service, or one above it, holds; None without a lease."""
        return self.lifecycle.lease

    @property
    def restarts(self) -> int:
        """The number of restarts by its policy since it was prepared."""
        return self.lifecycle.restarts

    @property
    def parent(self) -> "MultiService | None":
        """The multi-service that this one is a child of."""
        above = self.lifecycle.parent
        return None if above is None else cast("MultiService", above.service)

    @property
    def root_service(self) -> "Service":
        """The root of this service's tree."""
        return cast("Service", self.lifecycle.root.service)

    @property
    def full_name(self) -> str:
        """The names from below the root to this service, joined by slashes; for a root, its name."""
        path, above = self.name or self.default_name(), self.lifecycle.parent
        while above is not None and above.parent is not None:
            path, above = f"{above.service.name}/{path}", above.parent
        return path

    @property
    def children(self) -> "tuple[Service, ...]":
        """The services directly below this one, in starting order."""
        return tuple(cast("Service", each.service) for each in self.lifecycle.children)

    def default_name(self) -> str:
        """Return the name for a service without one: ``StreamServer`` → ``stream-server``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(self).__name__.strip("_")).lower()

    def walk(self) -> "Iterator[Service]":
        """Yield this service and all below it, parents first, in starting order."""
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
    """A group of services that start and stop as one.

    Children are prepared and started in the order in which they were added, each when the one before it
    is ready, and stopped in reverse order. The hooks of a subclass are called before its children's at start
    and after them at stop.

    ``strategy`` defines the children that are restarted when one fails and its policy allows a restart:

    - ``"one_for_one"``: that child;
    - ``"one_for_all"``: all children;
    - ``"rest_for_one"``: that child and those added after it.

    A child that fails and whose policy allows no restart fails the multi-service, whose own ``restart``
    policy is applied next.
    """

    strategy: Strategy = "one_for_one"

    @cached_property
    def lifecycle(self) -> GroupLifecycle:
        """The lifecycle of this service and its children."""
        return GroupLifecycle(self, self._overridden, lambda: self.strategy)

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
        """Append a service.

        A running multi-service starts the child at once; one that is starting does so after the others. The
        result may be awaited: it is done when the child has the state of its parent, and raises the child's
        failure. A child that fails to start is removed again.

        A child without a name gets one from its class, with a number if that is in use. Raises ServiceMisuse
        if its name is in use or has a slash, if it has a parent or is started on its own, or if the
        multi-service is stopping.
        """
        if not isinstance(child, Service):  # for callers without a type checker
            raise _no_service(f"cannot add {child!r} to {self.full_name}", child)
        return self.lifecycle.add(child.lifecycle)

    async def remove(self, child: Service) -> None:
        """Stop a child if it runs, release it, and remove it.

        The child's own ``run`` may call this, and continues afterwards. Raises ServiceMisuse if the service
        is not a child of this one, or if the multi-service is starting or stopping.
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


class Only(MultiService):
    """Runs any service in one worker at a time, see `Service.only`, even one without that parameter.

    ``scope`` is ``host`` for one in this daemon, ``cluster`` for one in a fleet of machines.
    """

    def __init__(self, service: Service, *, scope: Scope = "host") -> None:
        check_scope(scope, type(self).__name__)
        if not isinstance(service, Service):
            raise _no_service(f"{type(self).__name__}({service!r})", service)
        super().__init__(service.name or service.default_name(), service)
        self.only = scope


def _no_service(what: str, value: object) -> ServiceMisuse:
    """Return the error for a value that is no service."""
    if isinstance(value, type) and issubclass(value, Service):
        return ServiceMisuse(what, "it is a class", f"create an instance: {value.__name__}(...)")
    return ServiceMisuse(what, f"it is {noun(type(value).__name__)}, not a service")


def require_function(service: Service, parameter: str, value: object) -> None:
    """Raise ServiceMisuse unless a service got something that it can call as this parameter."""
    if callable(value):
        return
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python would warn that it was never awaited
    what = f"{type(service).__name__}: the {parameter} is {noun(type(value).__name__)}, not a function"
    raise ServiceMisuse(what, remedy="pass the function itself, without parentheses behind its name")
