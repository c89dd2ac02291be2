"""Whether endpoint services listen: what they hide, seen from the endpoint's side.

A StreamServerEndpointService whose endpoint cannot be bound logs that, and says nothing: the program is
started and has no listener. So while such services are started their endpoints stand behind one of ours,
which remembers what came of `listen`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IService, IServiceCollection
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from tamed.twisted._await import outcome

__all__ = ["Attempt", "watched_endpoints"]


@implementer(IStreamServerEndpoint)
class Attempt:
    """An endpoint in whose place it stands, and what came of `listen`.

    ``failure`` is why it failed, and ``done`` fires when that is known. Neither is set if nobody listened.
    """

    def __init__(self, endpoint: IStreamServerEndpoint) -> None:
        self._endpoint = endpoint
        self.failure: BaseException | None = None
        self.done: Deferred[None] | None = None

    def listen(self, protocolFactory: IProtocolFactory) -> "Deferred[Any]":  # noqa: N803
        """Listen, and remember what comes of it."""
        done = self.done = Deferred()
        listen: Any = self._endpoint.listen
        listening: Deferred[Any] = maybeDeferred(listen, protocolFactory)

        def failed(failure: Failure) -> Failure:
            self.failure = failure.value
            done.callback(None)
            return Failure(CancelledError())  # which the service does not log: it is told by whom it concerns

        def listens(port: Any) -> Any:
            done.callback(None)
            return port

        listening.addCallbacks(listens, failed)
        return listening

    async def succeeded(self) -> None:
        """Wait until it listens; raise why it does not."""
        await outcome(self.done)
        if self.failure is not None:
            raise self.failure


@contextmanager
def watched_endpoints(service: IService) -> Iterator[Sequence[Attempt]]:
    """Put an `Attempt` in the place of each endpoint in a tree of services, inside the ``with`` only."""
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
