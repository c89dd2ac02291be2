"""Getting lost workers back: when the next attempt is made, and when they are used up.

Attempts are counted, for each worker's number by itself, in a row. No clock runs against them: an import that
takes a minute and then raises is an attempt like any other. What ends the row is a worker that has served for
some seconds; one that becomes ready and dies at once, over and over, has got nobody anywhere.
"""

import time
from collections.abc import Callable, Iterable

from tamed.runner._legacy import Data
from tamed.runner._reactor import Reactor, Timer
from tamed.service import Backoff

__all__ = ["Recovery"]

_ATTEMPTS = 10
_STEADY = 10.0  # seconds of service after which a death is the first of a row
_BACKOFF = Backoff(first=0.1, factor=2.0, maximum=30.0)


class Recovery:
    """Brings the serving generation back to its number of workers.

    ``missing`` returns the numbers of those that lack, and ``spawn`` starts one; that the system has no
    room for it is to be told to `refused`, and that it has ended to `failed`. ``restarts`` is how many were
    started so. ``last_error`` is what went wrong last, and ``failed_at`` when, in seconds since the epoch.
    """

    def __init__(
        self,
        reactor: Reactor,
        *,
        missing: Callable[[], Iterable[int]],
        spawn: Callable[[int], bool],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.restarts = 0
        self.last_error = ""
        self.failed_at: float | None = None
        self._reactor = reactor
        self._missing = missing
        self._spawn = spawn
        self._wall = wall
        self._failures: dict[int, int] = {}
        self._refusals: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self._timer: Timer | None = None

    def note(self, error: str) -> None:
        """Remember what went wrong, and when."""
        self.last_error = error
        self.failed_at = self._wall()

    def failed(self, number: int, served: float = 0.0) -> float:
        """Count an attempt that came to nothing; return the seconds until the next one.

        ``served`` is for how long the worker was ready. After a while of that its death is no failed attempt.
        """
        self._failures[number] = 0 if served >= _STEADY else self._failures.get(number, 0) + 1
        if not self._failures[number]:
            self._refusals[number] = 0
        return self._wait(number)

    def refused(self, number: int) -> float:
        """Count an attempt for which the system had no room; return the seconds until the next one.

        It uses nothing up: descriptors, processes and memory come back, and no worker has failed.
        """
        self._refusals[number] = self._refusals.get(number, 0) + 1
        return self._wait(number)

    def _wait(self, number: int) -> float:
        attempts = self._failures.get(number, 0) + self._refusals.get(number, 0)
        wait = _BACKOFF.delay(attempts) if attempts else 0.0
        self._due[number] = self._reactor.clock() + wait
        return wait

    def is_due(self, number: int) -> bool:
        """Whether a worker of this number may be started now."""
        return self._due.get(number, 0.0) <= self._reactor.clock()

    def is_exhausted(self, count: int) -> bool:
        """Whether each of so many workers has failed as often in a row as that is tried."""
        return all(self._failures.get(number, 0) >= _ATTEMPTS for number in range(1, count + 1))

    def look(self) -> None:
        """Start what is missing and due, and look again when the next one is due."""
        for number in list(self._missing()):
            if self.is_due(number) and self._spawn(number):
                self.restarts += 1
        if self._timer is not None:
            self._timer.cancel()
        waits = [self._due.get(number, 0.0) - self._reactor.clock() for number in self._missing()]
        if waits:
            self._timer = self._reactor.later(max(min(waits), 0.0), self.look)

    def bequeath(self) -> Data:
        """Return what the next program needs to go on."""
        return {"restarts": self.restarts, "last_error": self.last_error, "failed_at": self.failed_at}

    def inherit(self, left: Data) -> None:
        """Go on where the program before has stopped."""
        self.restarts = left["restarts"]
        self.last_error = left["last_error"]
        self.failed_at = left["failed_at"]

    def begin_anew(self) -> None:
        """Forget what was counted: other workers serve from now on."""
        self._failures.clear()
        self._refusals.clear()
        self._due.clear()
