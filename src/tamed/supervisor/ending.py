"""The end of a daemon: after a delay in which it still serves, by draining, or at once.

This file owns the exit status, the reason for an end that was not requested, and the timers of a stop;
nothing else writes them. A signal may announce the stop only. Then the workers drain until a deadline. The
reactor stops when the last worker and the operations process have ended.
"""

import signal
from collections.abc import Callable

from tamed._os.text import counted
from tamed.errors import ExitStatus
from tamed.supervisor.generation import Worker
from tamed.supervisor.loop import NO_TIMER, Timer
from tamed.supervisor.platform import Platform
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.watchdog import Watchdog
from tamed.supervisor.workers import WorkerPool

__all__ = ["Ending"]

_LAST_GRACE = 10.0  # seconds for processes that were killed to be gone


class Ending:
    """The end of a daemon.

    ``status`` is the exit status, once the reactor has been stopped; a negative status is the signal by which
    the process must end. ``failure`` is the reason for an end that was not requested. ``has_begun`` is
    whether the workers are stopping; ``cancel`` is called when that begins. After the end of the last worker,
    ``end_others`` is called with the seconds that are left, until it returns True; remaining processes are
    then killed.
    """

    def __init__(
        self,
        pool: WorkerPool,
        watchdog: Watchdog,
        sockets: SocketTable,
        platform: Platform,
        cancel: Callable[[], object],
    ) -> None:
        self.status = int(ExitStatus.OK)
        self.failure = ""
        self.has_begun = False
        self.end_others: Callable[[float], bool] = lambda _: True
        self._pool = pool
        self._watchdog = watchdog
        self._sockets = sockets
        self._reactor = platform.reactor
        self._platform = platform
        self._cancel = cancel
        self._deadline = 0.0
        self._delay = 0.0
        self._delayed: Timer | None = None
        self._look_again = NO_TIMER

    @property
    def is_announced(self) -> bool:
        """Whether the daemon is about to end: it should get no new clients."""
        return self.has_begun or self._delayed is not None

    @property
    def progress(self) -> str:
        """What the stop waits for; empty if there is none, or it has taken too long."""
        if self.has_begun:
            is_late = self._reactor.clock() > self._deadline + _LAST_GRACE
            return "" if is_late else f"draining: {counted(len(self._pool.workers), 'worker')} left"
        if self.is_announced:
            return f"stopping: clients are served for {self._delay:g} s, and then drained"
        return ""

    def announce(self, number: signal.Signals, delay: float, stop: Callable[[], object]) -> None:
        """Call ``stop`` after a delay, in which clients are served; a second request ends the delay."""
        if self._delayed is not None:
            self._platform.log("INFO", f"{number.name}: stopping without further delay")
            stop()
            return
        self._platform.log("INFO", f"{number.name}: stopping{f' in {delay:g} s' * (delay > 0)}")
        self._platform.record("stop", "asked to stop", asked=number.name, delay=delay or None)
        if not delay:
            stop()
            return
        self._delay = delay
        self._delayed = self._reactor.later(delay, stop)
        self._platform.notifier.stopping(self.progress)

    def begin(self, grace: float, status: int, why: str) -> None:
        """Stop every worker, within ``grace`` seconds, and then the reactor.

        The service manager is notified of ``why``, or of the ``failure``, if the stop was not requested.
        """
        if self._delayed is not None:
            self._delayed.cancel()
        self._begin(self._reactor.clock() + grace, int(status))
        self._platform.notifier.stopping(why or self.failure or self.progress)
        # Clients must not wait in a queue that no worker will serve. The workers accept those in it now.
        self._sockets.close()
        for worker in self._pool.workers.values():
            self._pool.terminate(worker)
        self._watchdog.kill_after(self._pool.workers.values(), grace)
        self.look()

    def at_once(self, number: signal.Signals) -> None:
        """Kill every worker, stop the reactor, and end by this signal."""
        self._platform.log("WARNING", f"{number.name}: ending at once")
        self._begin(0.0, -number)
        for pid in self._pool.workers:
            self._platform.kill(pid)
        self._reactor.later(_LAST_GRACE, self._reactor.stop)
        self.look()

    def _begin(self, deadline: float, status: int) -> None:
        self.has_begun = True
        self._deadline = deadline
        self.status = status
        self._cancel()
        self._pool.cancel_requests()
        self._pool.templates.end()

    def worker_ended(self, worker: Worker, code: int) -> None:
        """Handle the end of a worker while all stop; the first that fails sets the exit status."""
        if code not in (0, -signal.SIGTERM) and self.status == ExitStatus.OK:
            self._platform.log("ERROR", worker.how_it_ended(code))
            if worker.ready is not None:  # a start that was stopped has not failed
                self.status = worker.status

    def look(self) -> None:
        """Stop the reactor if nothing is left. Must be called after each end of a child."""
        grace = max(0.0, self._deadline - self._reactor.clock())
        is_alone = self.has_begun and not self._pool.workers and self.end_others(grace)
        if is_alone and self._platform.end_all(grace):
            self._reactor.stop()
        self._look_again.cancel()
        if (due := self._platform.due) is not None:  # an end without a signal
            self._look_again = self._reactor.later(due, self._reap)

    def _reap(self) -> None:
        self._pool.reap()
        self.look()
