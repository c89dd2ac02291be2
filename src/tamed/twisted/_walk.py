"""Starting and stopping a tree of Twisted services, and seeing what each of them returns.

Twisted's MultiService drops what `startService` of its children returns, a Deferred that fails later
included, and leaves those that have started as they are when the next one fails. While a tree is started
here, its MultiServices note what their children return, and what was started is known if it has to be undone.
And while it is stopped, a coroutine of `stopService` may await what is asyncio's.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from twisted.application.service import IServiceCollection, MultiService, Service
from twisted.internet.defer import Deferred, DeferredList

from tamed.twisted._await import begun

__all__ = ["Walk", "begin_stop"]

_METHODS: Final = ("privilegedStartService", "startService", "stopService")


class Walk:
    """One walk over a tree of services.

    ``started`` are the services whose method returned, in that order, and ``results`` what it returned, if
    anything.
    """

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.results: list[Any] = []

    def begin(self, service: Any, method: str) -> None:
        """Call ``privilegedStartService`` or ``startService`` on the root of a tree."""
        with self._noting(method):
            self._call(service, method)

    def to_stop(self) -> list[Any]:
        """Return what to stop to undo the walk, in that order: not what the parent of it stops."""
        return [each for each in reversed(self.started) if not self._stopped_by_parent(each)]

    def _stopped_by_parent(self, service: Any) -> bool:
        parent: Any = service.parent
        return any(IServiceCollection(each, None) is parent for each in self.started if parent is not None)

    def _call(self, service: Any, method: str) -> None:
        result: Any = getattr(service, method)()
        self.started.append(service)
        if result is not None:
            self.results.append(result)

    @contextmanager
    def _noting(self, method: str) -> Iterator[None]:
        """Have every MultiService tell what its children return, inside the ``with`` only."""

        def begin_children(parent: MultiService) -> None:
            getattr(Service, method)(parent)
            for child in parent:
                self._call(child, method)

        with _in_place_of(method, begin_children):
            yield


def begin_stop(service: Any) -> "Deferred[Any]":
    """Begin to stop a tree; return what fires with the result of ``stopService`` of its root."""

    def stop_children(parent: MultiService) -> "Deferred[Any]":
        Service.stopService(parent)
        return DeferredList(
            [begun(child.stopService) for child in reversed(list(parent))], consumeErrors=True
        )

    with _in_place_of("stopService", stop_children):
        return begun(service.stopService)


@contextmanager
def _in_place_of(method: str, ours: Callable[..., Any]) -> Iterator[None]:
    """Put a function in the place of a method of MultiService, inside the ``with`` only."""
    assert method in _METHODS
    original = MultiService.__dict__[method]
    setattr(MultiService, method, ours)
    try:
        yield
    finally:
        setattr(MultiService, method, original)
