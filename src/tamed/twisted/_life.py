"""The life of the reactor: attached to an event loop, started with the first service, ended with the last.

Twisted's ``reactor.run`` starts the reactor, runs the loop and fires the triggers of the shutdown. Here the
loop has another owner, so the first service that starts also starts the reactor, and the last one that stops
fires the shutdown triggers, after the connections are closed.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

from twisted.internet import error, process
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred

from tamed.errors import DeadlinePassed
from tamed.log.logger import own_logger
from tamed.twisted._compat import event_loop, forget_triggers, set_event_loop
from tamed.twisted._connections import Connections
from tamed.twisted._results import outcome

__all__ = ["STOP_TIMEOUT", "NoLoop", "ReactorLife"]

log = own_logger("tamed.twisted")

_Stop = Callable[[], Coroutine[Any, Any, None]]

_HOOKS = 20.0
"""Timeout, in seconds, for `stopService` and the triggers of a shutdown."""
_GRACE = 5.0
"""Timeout, in seconds, for aborted connections to close."""

STOP_TIMEOUT = _HOOKS + 3 * _GRACE
"""The longest time of a stop, in seconds, without draining."""


class ReactorLife:
    """Attaches, starts and ends a reactor for the services that use it.

    ``stopped`` is set after the program has called ``reactor.stop()``; ``failure`` is the reason if that was
    an error.
    """

    def __init__(self, reactor: AsyncioSelectorReactor, connections: Connections) -> None:
        self.stopped = asyncio.Event()
        self.failure: BaseException | None = None
        self._reactor = reactor
        self._connections = connections
        self._children: _Children | None = None
        self._attached = 0
        self._started = 0
        self._can_stop = False
        self._is_ending = False
        self._start_deadline: asyncio.Timeout | None = None

    # The event loop.

    def attach(self) -> None:
        """Attach the reactor to the running loop, with its pending readers, writers and calls."""
        if not self._attached:
            self.stopped = asyncio.Event()
            self.failure = None
            loop = asyncio.get_running_loop()
            before = event_loop(self._reactor)
            self._move(loop)
            if isinstance(before, NoLoop):
                before.hand_over(loop)
            self._children = _Children(loop)
        self._attached += 1

    def detach(self) -> None:
        """Undo one `attach`; with the last one the reactor leaves the loop."""
        self._attached -= 1
        if not self._attached:
            self._move(cast(asyncio.AbstractEventLoop, NoLoop()))
            if self._children is not None:
                self._children.close()
                self._children = None

    def watch_child(self, pid: int) -> None:
        """Watch for the end of a child process, now or as soon as there is a loop."""
        if self._children is not None:
            self._children.watch(pid)

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        reactor: Any = self._reactor
        readers, writers = reactor.getReaders(), reactor.getWriters()
        for reader in readers:
            reactor.removeReader(reader)
        for writer in writers:
            reactor.removeWriter(writer)
        set_event_loop(reactor, loop)
        for reader in readers:
            if reader.fileno() >= 0:  # it may be closed
                reactor.addReader(reader)
        for writer in writers:
            if writer.fileno() >= 0:
                reactor.addWriter(writer)
        # Moving a call to an earlier time makes the reactor set its timer again, in the new loop.
        call = reactor.callLater(1, _do_nothing)
        call.reset(0)
        call.cancel()

    # Start and stop.

    async def start(self) -> None:
        """Start the reactor, unless it is started: fire its startup triggers."""
        self._started += 1
        if self._started == 1:
            started: Deferred[None] = Deferred()
            self._reactor.addSystemEventTrigger("after", "startup", started.callback, None)
            self._can_stop = True
            self._reactor.startRunning(installSignalHandlers=False)
            await outcome(started)

    async def unless_stopped(self, ready: Coroutine[Any, Any, None]) -> bool:
        """Await ``ready`` until it is done or ``reactor.stop()`` is called; return whether it is done."""
        if self.stopped.is_set():
            ready.close()
            return False
        try:
            async with asyncio.timeout(None) as self._start_deadline:
                await ready
        except TimeoutError:
            if not self.stopped.is_set():
                raise
        finally:
            self._start_deadline = None
        return not self.stopped.is_set()

    def stop_called(self) -> None:
        """Handle ``reactor.stop()``. Raises ReactorNotRunning as Twisted's does."""
        if not self._can_stop:
            raise error.ReactorNotRunning("Can't stop reactor that isn't running.")
        self._can_stop = False
        self._set_stopped()

    def crashed(self) -> None:
        """Handle ``reactor.crash()``, unless it is part of the shutdown."""
        if not self._is_ending:
            self._set_stopped()

    def _set_stopped(self) -> None:
        self.stopped.set()
        if self._start_deadline is not None:
            self._start_deadline.reschedule(0)

    async def stop(self, stop_services: _Stop, drain: float) -> None:
        """Stop some services; with the last ones, end the reactor when its connections are closed.

        The triggers before the shutdown are called first, as they are under Twisted. Connections that are
        open after ``drain`` seconds are aborted. Raises what ``stop_services`` raises.
        """
        self._started -= 1
        if self._started:
            await _within(_HOOKS, stop_services())
            return
        failures: list[BaseException] = []
        stopping = asyncio.ensure_future(self._stop_and_drain(stop_services, drain, failures))
        ended: Deferred[None] = Deferred()
        self._reactor.addSystemEventTrigger("before", "shutdown", Deferred.fromFuture, stopping)
        self._reactor.addSystemEventTrigger("after", "shutdown", ended.callback, None)
        self._shut_down()
        try:
            await _within(_HOOKS + drain + 2 * _GRACE, outcome(ended))
        except (DeadlinePassed, asyncio.CancelledError):
            log.warning("the triggers before the reactor's shutdown are too slow: it ends without them")
            stopping.cancel()
            self._abandon()
            raise
        if failures:
            raise failures[0]

    async def _stop_and_drain(
        self, stop_services: _Stop, drain: float, failures: list[BaseException]
    ) -> None:
        self._connections.notify_draining()
        try:
            await _within(_HOOKS, stop_services())
        except (Exception, SystemExit) as raised:  # SystemExit would end the loop if it left this task
            failures.append(raised)
        self._connections.stop_accepting()
        for port in self._connections.ports:  # ports that the program left open
            await outcome(port.stopListening())
        try:
            await _within(drain, self._connections.all_closed())
        except DeadlinePassed:
            log.warning(
                "the reactor aborts connections that did not end within %g s: %s", drain, self._connections
            )
            await self._abort()

    async def _abort(self) -> None:
        """Abort open connections, and abandon those that do not close even then."""
        self._connections.abort()
        try:
            await _within(_GRACE, self._connections.all_closed())
        except DeadlinePassed:
            log.error("the reactor abandons connections that do not close: %s", self._connections)  # noqa: TRY400
            self._connections.forget()

    def _shut_down(self) -> None:
        """Fire the triggers of a shutdown, as the end of Twisted's own loop does."""
        self._is_ending = True
        self._can_stop = False
        self._reactor.addSystemEventTrigger("after", "shutdown", self._renew)
        self._reactor.fireSystemEvent("shutdown")

    def _abandon(self) -> None:
        """End at once, without firing the remaining triggers."""
        self._is_ending = True
        forget_triggers(self._reactor, "shutdown")
        self._reactor.crash()
        self._reactor.disconnectAll()
        if self._reactor.threadpool is not None:
            self._reactor.threadpool.stop()
            self._reactor.threadpool = None
        self._renew()

    def _renew(self) -> None:
        # Twisted adds these two once, when a reactor is made; this one may start again, in another loop.
        self._reactor.addSystemEventTrigger("during", "shutdown", self._reactor.crash)
        self._reactor.addSystemEventTrigger("during", "shutdown", self._reactor.disconnectAll)
        self._is_ending = False


class NoLoop:
    """Replaces the event loop while there is none: the methods that the reactor uses, which do nothing.

    The reactor keeps its readers, writers and timers itself, and moves them to a real loop. Only the calls
    of other threads have to be kept here.
    """

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []

    def time(self) -> float:
        """Return a time that does not pass."""
        return 0.0

    def call_at(self, when: float, callback: Callable[[], object]) -> "_NoTimer":
        """Return a timer that is never due."""
        return _NoTimer()

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        """Keep a call for the future loop."""
        self._calls.append(callback)

    def hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass the kept calls to a loop."""
        while self._calls:
            loop.call_soon_threadsafe(self._calls.pop(0))

    def _ignore(self, *_: Any) -> None:
        """Do nothing."""

    add_reader = add_writer = remove_reader = remove_writer = _ignore


class _NoTimer:
    """A timer that is never due."""

    def cancel(self) -> None:
        """Do nothing."""


class _Children:
    """Watches for the ends of the reactor's child processes.

    Twisted listens to SIGCHLD, with a wake-up descriptor of its own. Here both belong to the event loop:
    uvloop uses the signal for its own children. So each child is watched by its descriptor (pidfd_open(2)).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[int, int] = {}
        for pid in process.reapProcessHandlers:
            self.watch(pid)

    def watch(self, pid: int) -> None:
        """Notify Twisted when a child has ended."""
        if pid in process.reapProcessHandlers:  # otherwise it has already ended
            descriptor = self._watched[pid] = os.pidfd_open(pid)
            self._loop.add_reader(descriptor, partial(self._ended, pid))

    def close(self) -> None:
        for pid in tuple(self._watched):
            self._forget(pid)

    def _ended(self, pid: int) -> None:
        self._forget(pid)
        process.reapAllProcesses()

    def _forget(self, pid: int) -> None:
        descriptor = self._watched.pop(pid)
        self._loop.remove_reader(descriptor)
        os.close(descriptor)


async def _within(seconds: float, awaited: Coroutine[Any, Any, Any]) -> None:
    """Await with a timeout. Raises DeadlinePassed."""
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            await awaited
    except TimeoutError:
        if deadline.expired():
            raise DeadlinePassed(seconds) from None
        raise


def _do_nothing() -> None:
    """Do nothing."""
