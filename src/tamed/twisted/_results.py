"""The results of Twisted's services when they start and stop, recorded, and awaited in asyncio.

Twisted's MultiService drops the results of its children's ``startService``, even a Deferred that fails later,
and leaves started children running when the next one fails. While a tree is started here, its MultiServices
record the children's results and which ones were started, so that they can be stopped. While it is stopped, a
``stopService`` coroutine may await asyncio's futures.

A StreamServerEndpointService whose endpoint cannot be bound only logs that: the program would start without a
listener. So while such services are started, a wrapper replaces their endpoint, and records the result of
``listen``.
"""

import asyncio
import inspect
import types
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IService, IServiceCollection, MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from tamed.errors import reason
from tamed.log.logger import own_logger

__all__ = ["Attempt", "Walk", "outcome", "stop_tree", "watched_endpoints"]

log = own_logger("tamed.twisted")

_METHODS: Final = ("privilegedStartService", "startService", "stopService")


class Walk:
    """One walk over a tree of services.

    ``started`` are the services whose method returned, in that order, and ``results`` the results that are
    not None.
    """

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.results: list[Any] = []

    def begin(self, service: Any, method: str) -> None:
        """Call ``privilegedStartService`` or ``startService`` on the root of a tree."""
        with self._recording(method):
            self._call(service, method)

    def to_stop(self) -> list[Any]:
        """Return the services to stop, in order, to undo the walk, without those that a parent stops."""
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
    def _recording(self, method: str) -> Iterator[None]:
        """Make every MultiService record the results of its children, inside the ``with`` only."""

        def begin_children(parent: MultiService) -> None:
            getattr(Service, method)(parent)
            for child in parent:
                self._call(child, method)

        with _in_place_of(method, begin_children):
            yield


async def stop_tree(service: Any) -> None:
    """Stop a tree of services, and wait until it has stopped. Raises the first failure, logs the others."""

    def stop_children(parent: MultiService) -> "Deferred[Any]":
        Service.stopService(parent)
        return DeferredList(
            [_begun(child.stopService) for child in reversed(list(parent))], consumeErrors=True
        )

    with _in_place_of("stopService", stop_children):
        stopping = _begun(service.stopService)
    failures = list(_failures(await outcome(stopping)))
    for failure in failures[1:]:
        log.error("stopService failed: %s", reason(failure), exc_info=failure)
    if failures:
        raise failures[0]


def _failures(result: Any) -> Iterator[BaseException]:
    """Yield the failures in the result of a MultiService: a list of pairs, with such lists in it."""
    for entry in result if isinstance(result, list) else ():
        if isinstance(entry, tuple) and len(entry) == 2:
            succeeded, value = entry
            if not succeeded and isinstance(value, Failure) and value.value is not None:
                yield value.value
            yield from _failures(value)


def _begun(method: Callable[[], Any]) -> "Deferred[Any]":
    """Call a method, and return a Deferred for its result; a coroutine is started."""

    def begin() -> Any:
        result = method()
        if inspect.iscoroutine(result):
            return Deferred.fromFuture(asyncio.ensure_future(outcome(result)))
        return result

    return maybeDeferred(begin)


@contextmanager
def _in_place_of(method: str, ours: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of MultiService inside the ``with``."""
    assert method in _METHODS
    original = MultiService.__dict__[method]
    setattr(MultiService, method, ours)
    try:
        yield
    finally:
        setattr(MultiService, method, original)


@implementer(IStreamServerEndpoint)
class Attempt:
    """Wraps an endpoint, and records the result of `listen`.

    ``failure`` is the exception of a failed call, and ``done`` fires with the result. Unset before a call.
    """

    def __init__(self, endpoint: IStreamServerEndpoint) -> None:
        self._endpoint = endpoint
        self.failure: BaseException | None = None
        self.done: Deferred[None] | None = None

    def listen(self, protocolFactory: IProtocolFactory) -> "Deferred[Any]":  # noqa: N803
        """Listen, and record the result."""
        done = self.done = Deferred()
        listen: Any = self._endpoint.listen
        listening: Deferred[Any] = maybeDeferred(listen, protocolFactory)

        def failed(failure: Failure) -> Failure:
            self.failure = failure.value
            done.callback(None)
            return Failure(CancelledError())  # not logged by the service: the start reports the failure

        def listens(port: Any) -> Any:
            done.callback(None)
            return port

        listening.addCallbacks(listens, failed)
        return listening

    async def succeeded(self) -> None:
        """Wait until it listens; raise the failure if it does not."""
        await outcome(self.done)
        if self.failure is not None:
            raise self.failure


@contextmanager
def watched_endpoints(service: IService) -> Iterator[Sequence[Attempt]]:
    """Replace each endpoint in a tree of services with an `Attempt`, inside the ``with``."""
    watched = [
        (each, each.endpoint) for each in _walk(service) if isinstance(each, StreamServerEndpointService)
    ]
    attempts = [Attempt(endpoint) for _, endpoint in watched]
    for (each, _), attempt in zip(watched, attempts, strict=True):
        each.endpoint = attempt
    try:
        yield attempts
    finally:
        for each, endpoint in watched:
            each.endpoint = endpoint


def _walk(service: Any) -> Iterator[Any]:
    yield service
    children: Any = IServiceCollection(service, ())
    for child in children:
        yield from _walk(child)


async def outcome(result: Any) -> Any:
    """Await the return value of a method, and return or raise its result.

    A coroutine may await both Deferreds and asyncio's futures. Cancelling a waiting task cancels the awaited
    object.
    """
    if isinstance(result, Deferred):
        return await result.asFuture(asyncio.get_running_loop())
    if inspect.iscoroutine(result):
        return await _both_worlds(result)
    if inspect.isawaitable(result):
        return await result
    return result


@types.coroutine
def _both_worlds(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Run a coroutine, and yield only asyncio's futures to the event loop."""
    error: BaseException | None = None
    value: Any = None
    while True:
        try:
            awaited = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        value = error = None
        try:
            if isinstance(awaited, Deferred):
                yield from _fired(awaited)
            else:
                value = yield awaited
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as raised:  # thrown into the coroutine, above
            error = raised


def _fired(deferred: "Deferred[Any]") -> Generator[Any, Any, None]:
    """Wait until a Deferred has its result, which stays in it for the coroutine."""
    fired = asyncio.get_running_loop().create_future()

    def finish(result: Any) -> Any:
        if not fired.done():
            fired.set_result(None)
        return result

    deferred.addBoth(finish)
    try:
        yield from fired
    except asyncio.CancelledError:
        deferred.addErrback(_ignore)
        deferred.cancel()
        raise


def _ignore(_: Failure) -> None:
    """Handle the failure of a cancelled Deferred."""
