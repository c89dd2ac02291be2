"""A Tamed service under a Twisted parent."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from twisted.application.service import Service as TwistedBase
from twisted.internet.defer import Deferred

from tamed._logger import own_logger
from tamed.errors import ServiceFailed, reason
from tamed.service.application import Application
from tamed.service.service import Service
from tamed.twisted._reactor import TamedReactor

__all__ = ["TamedServiceForTwisted"]

log = own_logger("tamed.twisted")


class TamedServiceForTwisted(TwistedBase):
    """An IService that runs a Tamed service.

    It is prepared, started and stopped with its Twisted parent. Each method returns a Deferred for that;
    under Tamed it is waited for, and its failure fails the start, while twistd ignores it. A service that
    fails past its restart policy ends the application, under Tamed with the status of the failure. Under
    twistd it needs ``--reactor asyncio``.
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
        """Start the service, and prepare it if nobody has."""
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
        """End the whole program with the service, as Tamed's applications do."""
        reactor = _reactor()
        failure: ServiceFailed | None = None
        try:
            await self._application.wait()
        except ServiceFailed as error:
            failure = error
            log.error("%s", reason(error))  # noqa: TRY400 - the traceback is told elsewhere
        if isinstance(reactor, TamedReactor):
            reactor.life.failure = failure
        reactor.stop()


def _task(coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Begin a coroutine in the event loop that the reactor runs on, which twistd does not run yet."""
    loop: asyncio.AbstractEventLoop = _reactor()._asyncioEventloop
    return loop.create_task(coroutine)


def _reactor() -> Any:
    """Return the reactor of this process, which may be Twisted's own for asyncio."""
    from twisted.internet import reactor

    return reactor
