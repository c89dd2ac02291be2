"""Twisted's services as Tamed's, and Tamed's as Twisted's."""

import asyncio
import os
from collections.abc import Coroutine, Iterator, Sequence
from functools import partial
from typing import Any

from twisted.application.service import IProcess, IService, IServiceCollection
from twisted.application.service import Service as TwistedBase
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError

from tamed.errors import ApplicationFailed, ConfigurationError, ServiceFailed, TamedError, reason
from tamed.log.logger import own_logger
from tamed.net.listen import current_environment
from tamed.service.application import Application
from tamed.service.service import Service
from tamed.twisted._compat import event_loop
from tamed.twisted._life import STOP_TIMEOUT
from tamed.twisted._logging import begin_logging
from tamed.twisted._results import Attempt, Walk, outcome, stop_tree, watched_endpoints
from tamed.twisted.reactor import TamedReactor, install

__all__ = ["TamedServiceForTwisted", "TwistedService"]

log = own_logger("tamed.twisted")


class TwistedService(Service):
    """Runs a Twisted service, or a whole Twisted application, inside a Tamed application.

    ``privilegedStartService`` is called while the process may still have privileges and ``startService``
    after it has dropped them. The start waits for their results, Deferreds or coroutines, in each service of
    the tree; if one fails, the start fails, and the services that were started are stopped. An endpoint that
    cannot be listened on fails the start as well. Clients are accepted when all services are ready. The stop
    waits for the Deferred of ``stopService``, and then for the open connections, until the drain deadline.

    The reactor runs on the event loop that runs this. ``reactor.stop()`` ends the application. Raises
    ApplicationFailed if ``service`` is not a Twisted service, or if another reactor is installed.
    """

    def __init__(self, service: Any, name: str | None = None) -> None:
        twisted = IService(service, None)
        if twisted is None:
            raise ApplicationFailed(f"{service!r} is not a Twisted service", remedy="pass an IService")
        super().__init__(name)
        self.wrapped: Any = twisted
        self.reactor: TamedReactor = install()
        self._application = service
        self._attempts: Sequence[Attempt] = ()

    def default_name(self) -> str:
        """Return the Twisted service's own name, with ``-`` for each slash, or ``twisted-service``."""
        return (getattr(self.wrapped, "name", None) or super().default_name()).replace("/", "-")

    @property
    def summary(self) -> str:
        """Its addresses, or its parts while it does not listen."""
        return ", ".join(self.reactor.connections.addresses) or ", ".join(_shown(self.wrapped))

    @property
    def connections(self) -> int:
        """The number of open connections of the reactor; of several services the first reports it."""
        counted = self.reactor.connections
        return len(counted) if counted.reporter is self else 0

    @property
    def accepted(self) -> int:
        """The number of all connections so far; of several services the first reports it."""
        counted = self.reactor.connections
        return counted.accepted if counted.reporter is self else 0

    async def prepare(self) -> None:
        """Call ``privilegedStartService``, which usually listens."""
        self.reactor.life.attach()
        self.reactor.connections.reporter = self.reactor.connections.reporter or self
        begin_logging(self._application)
        try:
            await self._begin(Walk(), "privilegedStartService")
        except BaseException:
            await self.release()
            raise

    async def start(self) -> None:
        """Call ``startService``, start the reactor, and wait until all services are ready."""
        self._refuse_root()
        self.stop_timeout = current_environment().drain_timeout + STOP_TIMEOUT
        walk = Walk()
        running = False
        try:
            await self._begin(walk, "startService")
            running = True
            await self.reactor.life.start()
            if await self.reactor.life.unless_stopped(self._all_ready(walk)):
                self.reactor.connections.start_accepting(self)
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
            raise ApplicationFailed("it called reactor.stop()", "but is in no application that could end")
        log.info("reactor.stop() was called: stopping")
        root.exit()

    async def stop(self) -> None:
        """Call ``stopService``, and wait for that and for the connections."""
        await self.reactor.life.stop(partial(stop_tree, self.wrapped), current_environment().drain_timeout)

    async def release(self) -> None:
        """Close ports that ``privilegedStartService`` opened, if they are still open."""
        for port in self.reactor.connections.ports_of(self):
            await outcome(port.stopListening())
        self.reactor.life.detach()
        if self.reactor.connections.reporter is self:
            self.reactor.connections.reporter = None
        self._attempts = ()

    async def _begin(self, walk: Walk, method: str) -> None:
        """Call a method on the whole tree; raise its exception, or that of an endpoint that failed."""
        error: BaseException | None = None
        with watched_endpoints(self.wrapped) as attempts, self.reactor.connections.owned_by(self):
            try:
                walk.begin(self.wrapped, method)
            except (Exception, SystemExit) as raised:
                error = raised
        self._attempts = [*self._attempts, *(attempt for attempt in attempts if attempt.done is not None)]
        failed = [attempt.failure for attempt in attempts if attempt.failure is not None]
        if error is None or isinstance(error, CancelledError):  # the CancelledError of a failed endpoint
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
        """Refuse to run as root an application that names another user."""
        process: Any = IProcess(self._application, None)
        uid = getattr(process, "uid", None)
        if uid is not None and os.geteuid() == 0 and uid != 0:
            remedy = f"use --user {uid}"
            raise ConfigurationError(
                f"{self.full_name} must run as user {uid}", "this process is root", remedy
            )

    async def _undo(self, walk: Walk, *, running: bool) -> None:
        """Stop the services that were started, in reverse order."""

        async def stop() -> None:
            for service in walk.to_stop():
                try:
                    await stop_tree(service)
                except Exception:
                    log.exception("error while undoing the start")

        if running:
            await self.reactor.life.stop(stop, 0.0)
        else:
            await stop()


def _cause(error: BaseException) -> BaseException:
    """Return the cause of a Twisted error: the socket source's own error, if there is one."""
    if isinstance(error, CannotListenError) and isinstance(error.__cause__, TamedError):
        return error.__cause__
    return error


def _shown(service: Any) -> Iterator[str]:
    """Name the kinds of service in a tree."""
    collection: Any = IServiceCollection(service, ())
    children = list(collection)
    if not children:
        yield type(service).__name__
    for child in children:
        yield from _shown(child)


class TamedServiceForTwisted(TwistedBase):
    """An IService that runs a Tamed service.

    It is prepared, started and stopped with its Twisted parent. Each method returns a Deferred for that;
    Tamed waits for it, and its failure fails the start, while twistd ignores it. A service that fails past
    its restart policy ends the application, under Tamed with the status of the failure. Under twistd it
    needs ``--reactor asyncio``.
    """

    def __init__(self, service: Service, name: str | None = None) -> None:
        self.wrapped = service
        self._application = Application(name or service.name or service.default_name(), service)
        self._preparing: asyncio.Future[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.setName(self._application.name)

    def privilegedStartService(self) -> "Deferred[None]":  # noqa: N802
        """Prepare the service."""
        super().privilegedStartService()
        self._preparing = _task(self._application.lifecycle.prepare())
        return Deferred.fromFuture(asyncio.shield(self._preparing))

    def startService(self) -> "Deferred[None]":  # noqa: N802
        """Start the service, and prepare it if that was not done."""
        super().startService()
        return Deferred.fromFuture(_task(self._start()))

    def stopService(self) -> "Deferred[None]":  # noqa: N802
        """Stop the service and release it."""
        super().stopService()
        return Deferred.fromFuture(_task(self._stop()))

    async def _start(self) -> None:
        if self._preparing is not None:
            await self._preparing
        await self._application.lifecycle.bring_up()
        self._watching = _task(self._watch())

    async def _stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        failures = await self._application.lifecycle.take_down()
        if failures:
            raise failures[0]

    async def _watch(self) -> None:
        """End the program when the service ends, as Tamed's applications do."""
        reactor = _reactor()
        failure: ServiceFailed | None = None
        try:
            await self._application.wait()
        except ServiceFailed as error:
            failure = error
            log.error("%s", reason(error))  # noqa: TRY400 - the traceback is logged elsewhere
        if isinstance(reactor, TamedReactor):
            reactor.life.failure = failure
        reactor.stop()


def _task(coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Start a coroutine in the reactor's event loop, which twistd does not run yet."""
    return event_loop(_reactor()).create_task(coroutine)


def _reactor() -> Any:
    """Return the reactor of this process, which may be Twisted's own for asyncio."""
    from twisted.internet import reactor

    return reactor
