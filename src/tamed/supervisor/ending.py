"""The end of a daemon, and the signals that request it: after a delay in which it still serves, or at once.

This file owns the exit status, the reason for an end that was not requested, and the timers of a stop;
nothing else writes them. A signal may announce the stop only. Then the workers drain until a deadline. The
reactor stops when the last worker and the operations process have ended.
"""

import signal
from collections.abc import Callable, Mapping

from tamed._os.text import counted
from tamed.errors import ExitStatus
from tamed.supervisor.generation import Serving, Worker
from tamed.supervisor.loop import NO_TIMER, Timer
from tamed.supervisor.platform import Platform
from tamed.supervisor.rollout import ROLLBACK_GRACE
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.watchdog import Watchdog
from tamed.supervisor.workers import WorkerPool

__all__ = ["SIGNALS", "Ending"]

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)
"""The signals to pass to `Ending.signalled`."""

_LAST_GRACE = 10.0  # seconds for processes that were killed to be gone


class Ending:
    """The end of a daemon.

    ``status`` is the exit status, once the reactor has been stopped; a negative status is the signal by which
    the process must end. ``failure`` is the reason for an end that was not requested. ``has_begun`` is
    whether the workers are stopping; ``cancel`` is called when that begins. ``requests`` are called with the
    name of a signal that requests something else. After the end of the last worker, ``end_others`` is called
    with the seconds that are left, until it returns True; remaining processes are then killed.
    """

    def __init__(
        self,
        serving: Serving,
        pool: WorkerPool,
        watchdog: Watchdog,
        sockets: SocketTable,
        platform: Platform,
        *,
        cancel: Callable[[], object],
        requests: Mapping[signal.Signals, Callable[[str], object]],
    ) -> None:
        self.status = int(ExitStatus.OK)
        self.failure = ""
        self.has_begun = False
        self.end_others: Callable[[float], bool] = lambda _: True
        self._serving = serving
        self._requests = requests
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

    def signalled(self, number: signal.Signals) -> None:
        """Handle a signal."""
        is_hangup = number == signal.SIGHUP and self._platform.has_lost_terminal()
        if number in self._requests and not is_hangup:
            self._requests[number](number.name)
        elif number == signal.SIGCHLD:
            self.reap()
        elif number == signal.SIGQUIT or (number == signal.SIGINT and self.has_begun):
            self._end_at_once(number)
        elif not self.has_begun:
            self._announce(number)

    def _announce(self, number: signal.Signals) -> None:
        """Stop after a delay, in which clients are served; a second request ends the delay."""
        if self._delayed is not None:
            self._platform.log("INFO", f"{number.name}: stopping without further delay")
            self.stop()
            return
        serving = self._serving
        # A delay would be pointless if no worker serves.
        delay = serving.generation.plan.stop_delay if serving.is_running and serving.ready else 0.0
        self._platform.log("INFO", f"{number.name}: stopping{f' in {delay:g} s' * (delay > 0)}")
        self._platform.record("stop", "asked to stop", asked=number.name, delay=delay or None)
        if not delay:
            self.stop()
            return
        self._delay = delay
        self._delayed = self._reactor.later(delay, self.stop)
        self._platform.notifier.stopping(self.progress)

    def stop(self, status: int = ExitStatus.OK, *, why: str = "", failure: str = "") -> None:
        """Stop every worker, and then the reactor. The first call counts, and so does its exit status.

        The service manager is notified of ``why``, or of the ``failure``, if the stop was not requested.

        Workers that serve have the plan's ``stop_timeout`` to stop. Those of an unfinished start have a few
        seconds.
        """
        if self.has_begun:
            return
        if self._delayed is not None:
            self._delayed.cancel()
        serving = self._serving
        grace = serving.generation.plan.stop_timeout if serving.is_running else ROLLBACK_GRACE
        self.failure = failure
        self._begin(self._reactor.clock() + grace, int(status))
        self._platform.notifier.stopping(why or failure or self.progress)
        # Clients must not wait in a queue that no worker will serve. The workers accept those in it now.
        self._sockets.close()
        for worker in self._pool.workers.values():
            self._pool.terminate(worker)
        self._watchdog.kill_after(self._pool.workers.values(), grace)
        self._look()

    def _end_at_once(self, number: signal.Signals) -> None:
        """Kill every worker, stop the reactor, and end by this signal."""
        self._platform.log("WARNING", f"{number.name}: ending at once")
        self._begin(0.0, -number)
        for pid in self._pool.workers:
            self._platform.kill(pid)
        self._reactor.later(_LAST_GRACE, self._reactor.stop)
        self._look()

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

    def reap(self) -> None:
        """Handle every ended child; stop the reactor if nothing is left."""
        self._pool.reap()
        self._look()

    def _look(self) -> None:
        grace = max(0.0, self._deadline - self._reactor.clock())
        is_alone = self.has_begun and not self._pool.workers and self.end_others(grace)
        if is_alone and self._platform.end_all(grace):
            self._reactor.stop()
        self._look_again.cancel()
        if (due := self._platform.due) is not None:  # an end without a signal
            self._look_again = self._reactor.later(due, self.reap)
