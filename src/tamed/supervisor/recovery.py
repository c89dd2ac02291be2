"""Bringing a generation to its number of workers: when the next attempt is made, and when they are used up.

How many workers there are to be, and which there are, is known at any time. So nobody remembers that one is
to be started: `Recovery.look` compares the two and starts what is missing. It is called whenever either may
have changed, and there is no other way in which a worker is replaced, or started for a greater number.

Attempts are counted, for each worker's number by itself, in a row. No clock runs against them: an import that
takes a minute and then raises is an attempt like any other. What ends the row is a worker that has served for
some seconds; one that becomes ready and dies at once, over and over, has got nobody anywhere.
"""

import time
from collections.abc import Callable, Iterable

from tamed.ipc.handoff import Data
from tamed.service.restart import Backoff
from tamed.supervisor.loop import Reactor, Timer

__all__ = ["Recovery"]

_ATTEMPTS = 10
_STEADY = 10.0  # seconds of service after which a death is the first of a row
_BACKOFF = Backoff(first=0.1, factor=2.0, maximum=30.0)


class Recovery:
    """Brings the serving generation to its number of workers.

    ``missing`` returns the numbers of those that lack, ``has_room`` tells whether one may be started now (if
    not, `look` is to be called when that changes), and ``spawn`` starts one; that the system has no room for
    it is to be told to `refused`, and that it has ended to `failed`. ``restarts`` is how many lost ones were
    replaced. ``last_error`` is what went wrong last, and ``failed_at`` when, in seconds since the epoch.
    """

    def __init__(
        self,
        reactor: Reactor,
        *,
        missing: Callable[[], Iterable[int]],
        has_room: Callable[[], bool],
        spawn: Callable[[int], bool],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.restarts = 0
        self.last_error = ""
        self.failed_at: float | None = None
        self._reactor = reactor
        self._missing = missing
        self._has_room = has_room
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
        for number in filter(self.is_due, list(self._missing())):
            if not self._has_room():
                break
            was_lost = self._due.pop(number, None) is not None
            if self._spawn(number) and was_lost:
                self.restarts += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits = [self._due.get(number, 0.0) - self._reactor.clock() for number in self._missing()]
        if waits := [wait for wait in waits if wait > 0]:
            self._timer = self._reactor.later(min(waits), self.look)

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
