"""The reactor's life: it runs while a service needs it, and its end waits for the connections.

Twisted's `reactor.run` starts it, runs the loop and fires the shutdown's triggers. Here the loop is somebody
else's, so the first service that starts does the first of these, and the last one that stops the third.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from tamed._logger import own_logger
from tamed.errors import DeadlinePassed
from tamed.twisted._await import outcome

if TYPE_CHECKING:
    from tamed.twisted._connections import Connections
    from tamed.twisted._reactor import TamedReactor

__all__ = ["STOP_TIMEOUT", "ReactorLife"]

log = own_logger("tamed.twisted")

_Stop = Callable[[], Coroutine[Any, Any, None]]

_HOOKS = 20.0
"""Seconds that `stopService` and the triggers of a shutdown have."""
_GRACE = 5.0
"""Seconds that what was cut has to come to its end."""

STOP_TIMEOUT = _HOOKS + 3 * _GRACE
"""Seconds that a stop may take beside what its connections are given."""


class ReactorLife:
    """Attaches, starts and ends a reactor for the services that use it.

    ``stopped`` is set when the program has called ``reactor.stop()``, and ``failure`` is why, if it was not
    of its own accord.
    """

    def __init__(self, reactor: "TamedReactor") -> None:
        self.stopped = asyncio.Event()
        self.failure: BaseException | None = None
        self._reactor = reactor
        self._attached = 0
        self._running = 0
        self._patience: asyncio.Timeout | None = None

    def attach(self) -> None:
        """Have the reactor run in the running loop."""
        if not self._attached:
            self.stopped = asyncio.Event()
            self.failure = None
            self._reactor.attach(asyncio.get_running_loop())
        self._attached += 1

    def detach(self) -> None:
        """Undo one `attach`."""
        self._attached -= 1
        if not self._attached:
            self._reactor.detach()

    def ask_to_stop(self) -> None:
        """Take note that the program wants to end."""
        self.stopped.set()
        if self._patience is not None:
            self._patience.reschedule(0)

    async def unless_stopped(self, ready: Coroutine[Any, Any, None]) -> bool:
        """Wait for something, but not beyond a ``reactor.stop()``; tell whether it came to its end."""
        if self.stopped.is_set():
            ready.close()
            return False
        try:
            async with asyncio.timeout(None) as self._patience:
                await ready
        except TimeoutError:
            if not self.stopped.is_set():
                raise
        finally:
            self._patience = None
        return not self.stopped.is_set()

    async def start(self) -> None:
        """Let the reactor be running: fire the triggers of its startup, if that was not done."""
        self._running += 1
        if self._running == 1:
            started: Deferred[None] = Deferred()
            self._reactor.addSystemEventTrigger("after", "startup", started.callback, None)
            self._reactor.startRunning(installSignalHandlers=False)
            await outcome(started)

    async def stop(self, stop_services: _Stop, drain: float) -> None:
        """Stop some services; with the last ones, end the reactor when its connections are closed.

        The triggers before the shutdown are called first, as they are under Twisted. Connections that are
        open after ``drain`` seconds are cut. Raises what ``stop_services`` raises.
        """
        self._running -= 1
        if self._running:
            await _within(_HOOKS, stop_services())
            return
        failures: list[BaseException] = []
        stopping = asyncio.ensure_future(self._stop_and_drain(stop_services, drain, failures))
        ended: Deferred[None] = Deferred()
        self._reactor.addSystemEventTrigger("before", "shutdown", Deferred.fromFuture, stopping)
        self._reactor.addSystemEventTrigger("after", "shutdown", ended.callback, None)
        self._reactor.end()
        try:
            await _within(_HOOKS + drain + 2 * _GRACE, outcome(ended))
        except (DeadlinePassed, asyncio.CancelledError):
            log.warning("what the program does before the reactor's shutdown is not done in time")
            stopping.cancel()
            self._reactor.abandon()
            raise
        if failures:
            raise failures[0]

    async def _stop_and_drain(
        self, stop_services: _Stop, drain: float, failures: list[BaseException]
    ) -> None:
        try:
            await _within(_HOOKS, stop_services())
        except (Exception, SystemExit) as error:  # the second would end the loop if it left this task
            failures.append(error)
        connections = self._reactor.connections
        connections.is_running = False
        for port in connections.ports:  # those that the program leaves open
            await outcome(port.stopListening())
        try:
            await _within(drain, connections.all_closed())
        except DeadlinePassed:
            count = len(connections)
            log.warning(
                "the reactor cuts what is not done within %g s: %d connection%s (%s)",
                drain,
                count,
                "s" * (count > 1),
                connections.peers(),
            )
            await _cut(connections)


async def _cut(connections: "Connections") -> None:
    """Abort what is open. What does not end of that, by a fault of its own, is no more waited for."""
    connections.abort()
    try:
        await _within(_GRACE, connections.all_closed())
    except DeadlinePassed:
        log.error("the reactor gives up on connections that do not close: %s", connections.peers())  # noqa: TRY400
        connections.forget()


async def _within(seconds: float, waited_for: Coroutine[Any, Any, Any]) -> None:
    """Wait for something. Raises DeadlinePassed if that takes longer."""
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            await waited_for
    except TimeoutError:
        if deadline.expired():
            raise DeadlinePassed(seconds) from None
        raise
