"""A service: a thing with a name that starts and stops."""

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from tamed.errors import ServiceFailed, ServiceMisuse
from tamed.service import _recovery, lifecycle
from tamed.service._restart import Restart, RestartBudget
from tamed.service._state import IDLE, State
from tamed.service._watch import Watch

if TYPE_CHECKING:
    import asyncio

    from tamed.service._body import Body
    from tamed.service._multi import MultiService
    from tamed.service._recovery import Recovery
    from tamed.service._turn import Turn

__all__ = ["Service"]

_HOOKS = ("prepare", "start", "run", "stop", "release")

_SET_IN_PLAIN = ("name", "parent", "state", "_needs_release", "_needs_stop")
_SET_IN_ALL = (*_SET_IN_PLAIN, "_start_watch", "_up_since", "_run_body")


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

    # What the framework keeps has its first value in the class, so that a subclass need not call up to
    # `__init__`, and a service that was only built costs next to nothing.
    name: str = ""
    parent: "MultiService | None" = None
    state: State = IDLE
    restarting: bool = False
    restarts: int = 0

    # Which hooks a class overrides, so that the walks over a large tree need not ask or call the others.
    _has_prepare: ClassVar[bool] = False
    _has_start: ClassVar[bool] = False
    _has_run: ClassVar[bool] = False
    _has_stop: ClassVar[bool] = False
    _has_release: ClassVar[bool] = False
    _is_told: ClassVar[bool] = False  # in the log: it does something when it starts, runs or stops

    # Most services of such a tree are plain: they have neither children nor a body. The walks deal with
    # them quickly, the more so if there is nothing to prepare, or release, either.
    _may_have_children: ClassVar[bool] = False
    _is_plain: ClassVar[bool] = True
    _nothing_to_prepare: ClassVar[bool] = True

    _children: Sequence["Service"] = ()
    _needs_release: bool = False
    _needs_stop: bool = False
    _up_since: float = 0.0
    _run_body: "Body | None" = None
    _restart_budget: RestartBudget | None = None
    _own_recovery: "Recovery | None" = None  # of this service by itself
    _turn_taken: "Turn | None" = None
    _start_watch: Watch | None = None  # takes the failures that come while the children are started
    _user_watch: Watch | None = None  # and this one those that come in the body of `async with`

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        overridden = [getattr(cls, hook) is not getattr(Service, hook) for hook in _HOOKS]
        cls._has_prepare, cls._has_start, cls._has_run, cls._has_stop, cls._has_release = overridden
        cls._is_told = cls._has_start or cls._has_run or cls._has_stop
        cls._is_plain = not cls._may_have_children and not cls._has_run
        cls._nothing_to_prepare = cls._is_plain and not cls._has_prepare and not cls._has_release
        _share_keys(cls)
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
    def root_service(self) -> "Service":
        """The service at the top of the tree that this one is in."""
        service: Service = self
        while service.parent is not None:
            service = service.parent
        return service

    @property
    def full_name(self) -> str:
        """The names from below the root down to this service, joined by slashes; a root's is its name."""
        names = []
        service: Service = self
        while service.parent is not None:
            names.append(service.name)
            service = service.parent
        return "/".join(reversed(names)) or self.name or self.default_name()

    @property
    def children(self) -> "tuple[Service, ...]":
        """The services directly below this one, in starting order."""
        return tuple(self._children)

    def default_name(self) -> str:
        """Return the name a service gets if it has none: ``StreamServer`` → ``stream-server``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(self).__name__.strip("_")).lower()

    def walk(self) -> Iterator["Service"]:
        """Yield this service and all below it, each before its children, in starting order."""
        yield self
        for child in self._children:
            yield from child.walk()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.full_name} {self.state.value}>"

    async def __aenter__(self) -> Self:
        if self.parent is not None:
            what = f"cannot start service {self.full_name} by itself"
            raise ServiceMisuse(what, f"it is a part of {self.root_service.full_name}", "start that")
        await lifecycle.bring_up(self)
        self._user_watch = Watch()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._user_watch is not None
        failure, self._user_watch = self._user_watch.end(error), None
        failures = await lifecycle.take_down(self)
        if failure is not None:
            raise failure
        if error is None and failures:
            raise failures[0]

    def _begin_anew(self) -> None:
        """Forget an earlier life; called when this is prepared."""
        self._restart_budget = None
        self.restarts = 0

    def _give_up_work(self) -> "Sequence[asyncio.Future[None]]":
        """Give up what would bring up a part of this, which is being stopped; return what to wait for."""
        return ()

    def _departures(self) -> "Sequence[asyncio.Future[None]]":
        """Return what to wait for until the children that are being removed are gone."""
        return ()

    def _body_is_over(self, failure: ServiceFailed | None) -> None:
        """Take note that ``run`` has ended or failed, and was not made to."""
        if failure is None:
            _recovery.ended(self)
        else:
            _recovery.failed(self, failure)

    def _take_failure(self, failure: ServiceFailed) -> None:
        """Take a failure that nothing below could mend; called on a root only."""
        watch = self._start_watch or self._user_watch
        if watch is not None:
            watch.failed(failure)


def _share_keys(cls: type[Service]) -> None:
    """Have CPython keep what the framework sets in the table of attributes that instances of a class share.

    That table takes names from the first thirty instances only (key-sharing dictionaries, PEP 412). A name
    that is first set when thousands have been built, as ours are when a tree starts, would cost each of
    them a dictionary of its own: 200 bytes, and as much time as all the rest of a start.
    """
    with suppress(TypeError):  # a class that is a dict too, say, is not made by `object`
        one = object.__new__(cls)
        for name in _SET_IN_PLAIN if cls._is_plain else _SET_IN_ALL:
            with suppress(AttributeError):  # a property has no place in the table
                object.__setattr__(one, name, None)


_share_keys(Service)
