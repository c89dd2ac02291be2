"""A Twisted service as one of Tamed's."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from twisted.application.service import IProcess, IService, IServiceCollection
from twisted.internet.defer import CancelledError
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from tamed._logger import own_logger
from tamed.errors import ApplicationFailed, ConfigurationError, TamedError, reason
from tamed.net import current
from tamed.service.application import Application
from tamed.service.service import Service
from tamed.twisted._await import outcome
from tamed.twisted._endpoints import Attempt, watched_endpoints
from tamed.twisted._life import STOP_TIMEOUT
from tamed.twisted._logging import begin_logging
from tamed.twisted._reactor import TamedReactor, install
from tamed.twisted._walk import Walk, begin_stop

__all__ = ["TwistedService"]

log = own_logger("tamed.twisted")


class TwistedService(Service):
    """Runs a Twisted service, or a whole Twisted application, inside a Tamed application.

    ``privilegedStartService`` is called while the process may still have privileges and ``startService``
    after it has given them up. What they return, a Deferred or a coroutine, is waited for, in each service of
    the tree; if it fails, so does the start, and what was started is stopped. An endpoint that cannot be
    listened on fails the start as well. Clients are let in when all of it is ready. When it stops, the
    Deferred of ``stopService`` is waited for, and then the connections that are open, until the drain
    deadline.

    The reactor runs on the event loop that runs this. ``reactor.stop()`` ends the application. Raises
    ApplicationFailed if what is given is no Twisted service, or if another reactor is installed.
    """

    def __init__(self, service: Any, name: str | None = None) -> None:
        twisted = IService(service, None)
        if twisted is None:
            raise ApplicationFailed(f"{service!r} is no Twisted service", remedy="give it an IService")
        super().__init__(name)
        self.wrapped: Any = twisted
        self.reactor: TamedReactor = install()
        self._application = service
        self._attempts: Sequence[Attempt] = ()

    def default_name(self) -> str:
        """Return the Twisted service's own name, or ``twisted-service``."""
        return getattr(self.wrapped, "name", None) or super().default_name()

    @property
    def summary(self) -> str:
        """Where it listens, or what it is made of while it does not."""
        return ", ".join(self.reactor.connections.addresses) or ", ".join(_shown(self.wrapped))

    @property
    def connections(self) -> int:
        """How many connections the reactor's ports have open now; of several services the first tells it."""
        counted = self.reactor.connections
        return len(counted) if counted.teller is self else 0

    @property
    def accepted(self) -> int:
        """The number of all connections so far; of several services the first tells it."""
        counted = self.reactor.connections
        return counted.accepted if counted.teller is self else 0

    async def prepare(self) -> None:
        """Call ``privilegedStartService``: it listens, as a rule."""
        self.reactor.life.attach()
        self.reactor.connections.teller = self.reactor.connections.teller or self
        begin_logging(self._application)
        try:
            await self._begin(Walk(), "privilegedStartService")
        except BaseException:
            await self.release()
            raise

    async def start(self) -> None:
        """Call ``startService``, let the reactor be running, and wait until all is ready."""
        self._refuse_root()
        self.stop_timeout = current().drain_timeout + STOP_TIMEOUT
        walk = Walk()
        running = False
        try:
            await self._begin(walk, "startService")
            running = True
            await self.reactor.life.start()
            if await self.reactor.life.unless_stopped(self._all_ready(walk)):
                self.reactor.connections.let_in(self)
        except BaseException as error:
            await self._undo(walk, running=running)
            raise _cause(error) from error

    async def run(self) -> None:
        """Wait for ``reactor.stop()``."""
        life = self.reactor.life
        await life.stopped.wait()
        if life.failure is not None:
            raise life.failure
        root = self.root_service
        if not isinstance(root, Application):
            raise ApplicationFailed("it has called reactor.stop()", "and is in no application that could end")
        log.info("reactor.stop() was called: stopping")
        root.exit()

    async def stop(self) -> None:
        """Call ``stopService``, and wait for that and for the connections."""
        await self.reactor.life.stop(self._stop_service, current().drain_timeout)

    async def release(self) -> None:
        """Close what ``privilegedStartService`` has opened, if nothing has done so."""
        for port in self.reactor.connections.ports_of(self):
            await outcome(port.stopListening())
        self.reactor.life.detach()
        if self.reactor.connections.teller is self:
            self.reactor.connections.teller = None
        self._attempts = ()

    async def _begin(self, walk: Walk, method: str) -> None:
        """Call a method on the whole tree; raise what it raises, or why an endpoint of it does not listen."""
        error: BaseException | None = None
        with watched_endpoints(self.wrapped) as attempts:
            self.reactor.connections.owner = self
            try:
                walk.begin(self.wrapped, method)
            except (Exception, SystemExit) as raised:
                error = raised
            finally:
                self.reactor.connections.owner = None
        self._attempts = [*self._attempts, *(attempt for attempt in attempts if attempt.done is not None)]
        failed = [attempt.failure for attempt in attempts if attempt.failure is not None]
        if error is None or isinstance(error, CancelledError):  # which stands for the endpoint's
            error = failed[0] if failed else error
        if error is not None:
            raise _cause(error) from error
        if method == "privilegedStartService":
            for result in walk.results:
                await outcome(result)

    async def _all_ready(self, walk: Walk) -> None:
        for result in walk.results:
            await outcome(result)
        for attempt in self._attempts:
            await attempt.succeeded()

    def _refuse_root(self) -> None:
        """Refuse to run as root what says as whom it is to run."""
        process: Any = IProcess(self._application, None)
        uid = getattr(process, "uid", None)
        if uid is not None and os.geteuid() == 0 and uid != 0:
            remedy = f"say --user {uid}"
            raise ConfigurationError(f"{self.full_name} is to run as user {uid}", "and this is root", remedy)

    async def _undo(self, walk: Walk, *, running: bool) -> None:
        """Stop what was started, each after what was started after it."""

        async def stop() -> None:
            for service in walk.to_stop():
                try:
                    _raise_failures(await outcome(begin_stop(service)))
                except Exception:
                    log.exception("while the start is undone")

        if running:
            await self.reactor.life.stop(stop, 0.0)
        else:
            await stop()

    async def _stop_service(self) -> None:
        _raise_failures(await outcome(begin_stop(self.wrapped)))


def _cause(error: BaseException) -> BaseException:
    """Return what stands behind an error of Twisted's: why a socket cannot be had, as the source told it."""
    if isinstance(error, CannotListenError) and isinstance(error.__cause__, TamedError):
        return error.__cause__
    return error


def _raise_failures(result: Any) -> None:
    """Raise the first failure in what a MultiService returns: a list of pairs, with such lists in it."""
    failures = list(_failures(result))
    for failure in failures[1:]:
        log.error("stopService failed: %s", reason(failure), exc_info=failure)
    if failures:
        raise failures[0]


def _failures(result: Any) -> Iterator[BaseException]:
    for entry in result if isinstance(result, list) else ():
        if isinstance(entry, tuple) and len(entry) == 2:
            succeeded, value = entry
            if not succeeded and isinstance(value, Failure) and value.value is not None:
                yield value.value
            yield from _failures(value)


def _shown(service: Any) -> Iterator[str]:
    """Name the kinds of service in a tree."""
    collection: Any = IServiceCollection(service, ())
    children = list(collection)
    if not children:
        yield type(service).__name__
    for child in children:
        yield from _shown(child)
