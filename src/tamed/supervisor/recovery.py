"""Bringing a generation to its number of workers: when the next attempt is made, and when they are used up.

How many workers there are to be, and which there are, is known at any time. So nobody remembers that one is
to be started: `Recovery.look` compares the two and starts what is missing. It is called whenever either may
have changed, and there is no other way in which a worker is replaced, or started for a greater number.

Attempts are counted, for each worker's number by itself, in a row. No clock runs against them: an import that
takes a minute and then raises is an attempt like any other. What ends the row is a worker that has served for
some seconds; one that becomes ready and dies at once, over and over, has got nobody anywhere.
"""

import time
from collections.abc import Callable

from tamed.errors import ExitStatus, reason
from tamed.ipc.handoff import Data
from tamed.service.restart import Backoff
from tamed.supervisor.generation import Generation, Worker
from tamed.supervisor.loop import Reactor, Timer
from tamed.supervisor.platform import Platform
from tamed.supervisor.workers import WorkerPool

__all__ = ["Recovery"]

_ATTEMPTS = 10
_STEADY = 10.0  # seconds of service after which a death is the first of a row
_BACKOFF = Backoff(first=0.1, factor=2.0, maximum=30.0)


class Recovery:
    """Brings the generation that serves to its number of workers, while ``is_active`` says so.

    ``serving`` is asked for that generation, and ``failed`` is called with the reason and the status when an
    attempt has come to nothing. ``restarts`` is how many lost workers were replaced. ``last_error`` is what
    went wrong last, and ``failed_at`` when, in seconds since the epoch.
    """

    def __init__(
        self,
        pool: WorkerPool,
        reactor: Reactor,
        platform: Platform,
        *,
        serving: Callable[[], Generation],
        is_active: Callable[[], bool],
        failed: Callable[[str, int], object],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.restarts = 0
        self.last_error = ""
        self.failed_at: float | None = None
        self._pool = pool
        self._reactor = reactor
        self._platform = platform
        self._serving = serving
        self._is_active = is_active
        self._failed = failed
        self._wall = wall
        self._failures: dict[int, int] = {}
        self._refusals: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self._timer: Timer | None = None

    def spawn(self, number: int, replaces: Worker | None = None) -> bool:
        """Start a worker, perhaps to take another's place; tell whether that could be done.

        That the system has no room for one uses no attempt up: descriptors, processes and memory come back,
        and no worker has failed.
        """
        try:
            self._pool.spawn(self._serving(), number, replaces)
        except OSError as error:
            why = f"a worker cannot be started: {reason(error)}"
            self._remember(why)
            self._refusals[number] = self._refusals.get(number, 0) + 1
            self._platform.log("ERROR", f"{why}; it is tried again in {self._wait(number):.1f} s")
            self._failed(why, ExitStatus.OS_ERROR)
            return False
        return True

    def lost(self, worker: Worker, code: int, *, is_served: bool) -> bool:
        """Count a worker that has ended, and has not become ready or should have gone on.

        ``is_served`` says that others serve, or are about to. Tell whether there is hope: False if nobody
        serves, and no attempt is left. After a while of service a death is no failed attempt.
        """
        number, why = worker.number, worker.how_it_ended(code)
        self._remember(why)
        served = 0.0 if worker.ready is None else self._reactor.clock() - worker.ready
        self._failures[number] = 0 if served >= _STEADY else self._failures.get(number, 0) + 1
        if not self._failures[number]:
            self._refusals[number] = 0
        wait = self._wait(number)
        if (holder := self._pool.holder(worker.generation, number)) is not None:
            # the one that it was to replace, or the one that was to replace it
            self._platform.log("ERROR", f"{why}; worker {holder.pid} has its place")
        elif is_served or not self._is_exhausted():
            when = f"in {wait:.1f} s" if wait else "now"
            self._platform.log("ERROR", f"{why}; another one is started {when}")
            if worker.ready is None:
                self._failed(why, worker.status)
        else:
            self._platform.log("CRITICAL", f"{why}; nobody serves, and no attempt is left: stopping")
            return False
        return True

    def _remember(self, error: str) -> None:
        self.last_error = error
        self.failed_at = self._wall()

    def _wait(self, number: int) -> float:
        """Return the seconds until the next attempt, and make it due then."""
        attempts = self._failures.get(number, 0) + self._refusals.get(number, 0)
        wait = _BACKOFF.delay(attempts) if attempts else 0.0
        self._due[number] = self._reactor.clock() + wait
        return wait

    def _is_exhausted(self) -> bool:
        """Whether each worker has failed as often in a row as that is tried."""
        count = self._serving().count
        return all(self._failures.get(number, 0) >= _ATTEMPTS for number in range(1, count + 1))

    def is_due(self, number: int) -> bool:
        """Whether a worker of this number may be started now."""
        return self._due.get(number, 0.0) <= self._reactor.clock()

    def look(self) -> None:
        """Start what is missing and due, and look again when the next one is due."""
        for number in filter(self.is_due, self._missing()):
            if not self._pool.has_room(self._serving()):
                break
            was_lost = self._due.pop(number, None) is not None
            if self.spawn(number) and was_lost:
                self.restarts += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits = [self._due.get(number, 0.0) - self._reactor.clock() for number in self._missing()]
        if waits := [wait for wait in waits if wait > 0]:
            self._timer = self._reactor.later(min(waits), self.look)

    def _missing(self) -> list[int]:
        return self._pool.missing(self._serving()) if self._is_active() else []

    def export(self) -> Data:
        """Return what the next program needs to go on."""
        return {
            "restarts": self.restarts,
            "last_error": self.last_error,
            "failed_at": self.failed_at,
            "failures": list(self._failures.items()),
            "refusals": list(self._refusals.items()),
            "due": list(self._due.items()),
        }

    def resume(self, left: Data) -> None:
        """Go on where the program before has stopped."""
        self._failures = dict(left["failures"])
        self._refusals = dict(left["refusals"])
        self._due = dict(left["due"])
        self.restarts = left["restarts"]
        self.last_error = left["last_error"]
        self.failed_at = left["failed_at"]

    def begin_anew(self) -> None:
        """Forget what was counted: other workers serve from now on."""
        self._failures.clear()
        self._refusals.clear()
        self._due.clear()
