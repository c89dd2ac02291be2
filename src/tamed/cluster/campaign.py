"""The campaign for a cluster role: the times of requests to the engine, and the deadlines of a holder.

A state machine without a task, a socket or a clock: each call gets the time, so tests and simulations can
play it through. Times are in seconds of CLOCK_BOOTTIME, which continues while the machine is suspended.

All times of a lease count from the moment *before* the request that acquired or renewed it. The engine counts
from a later moment, so it does not grant the role again before this campaign considers it lost, whatever the
delays, as long as the two clocks run at about the same rate. In sixths of the lease:

====  ========================================================================
0     the request is sent
1     it is renewed; a request that has no answer by then has failed
4     without another success, the service must stop
5     a process in which it has not stopped is killed
6     the engine may give the role to another process
====  ========================================================================
"""

from collections.abc import Callable
from enum import StrEnum
from math import inf
from typing import Final

from tamed.cluster.engine import Attempt

__all__ = ["Campaign", "Phase", "Request"]

_RETRY: Final = 1 / 6
_DEADLINE: Final = 4 / 6
_KILL: Final = 5 / 6
_SPREAD: Final = 1 / 60  # of the lease: the spread of concurrent candidates' requests


class Phase(StrEnum):
    """The phases. ``resigning``: the service must stop, or is stopping. ``ended``: the campaign is over."""

    STANDBY = "standby"
    LEADING = "leading"
    RESIGNING = "resigning"
    ENDED = "ended"


class Request(StrEnum):
    """A request to the engine: a method of `Engine`."""

    ACQUIRE = "acquire"
    RENEW = "renew"
    RELEASE = "release"


class Campaign:
    """One campaign for a role, from its start to its end; after a lost lease, a new one is needed.

    ``ttl`` is the length of a lease in seconds. ``spread`` returns a random number from 0 up to 1.

    ``phase`` and ``token`` show whether the service may run. ``trouble`` is the reason if the last request
    had no answer, else empty. ``holder`` is the claim of another holder. ``kill_at`` is the time by which the
    process must have ended; None if it holds nothing.
    """

    def __init__(self, ttl: float, now: float, spread: Callable[[], float]) -> None:
        self.phase = Phase.STANDBY
        self.token: int | None = None
        self.holder = ""
        self.trouble = ""
        self._ttl = ttl
        self._spread = spread
        self._due = now  # time of the next request
        self._sent = now  # time of the last success, or of the start
        self._is_lost = False
        self._is_stopped = False
        self._has_asked = False
        self._is_releasing = False

    @property
    def kill_at(self) -> float | None:
        """The time by which the process must have ended, unless the lease is renewed."""
        is_held = self.token is not None and not self._is_stopped
        return self._sent + self._ttl * _KILL if is_held else None

    @property
    def must_stop(self) -> bool:
        """Whether the service must stop, and has not reported its stop."""
        return self.phase is Phase.RESIGNING and not self._is_stopped

    @property
    def patience(self) -> float:
        """The timeout of a request, in seconds."""
        return self._ttl * _RETRY

    @property
    def due(self) -> float:
        """The time of the next call of `request` or `look`, unless something happens before."""
        if self.phase is Phase.LEADING:
            return min(self._due, self._sent + self._ttl * _DEADLINE)
        return self._due

    def request(self, now: float) -> Request | None:
        """Return the request that is due; its outcome must be reported before the next call."""
        if now < self._due or self.phase is Phase.ENDED:
            return None
        if self._is_stopped:
            self._is_releasing = True
            return Request.RELEASE
        if self.phase is Phase.STANDBY:
            self._has_asked = True
            return Request.ACQUIRE
        return Request.RENEW

    # The outcomes of requests. ``sent`` is the time before the request was sent.

    def acquired(self, attempt: Attempt, sent: float, now: float) -> None:
        """Handle the answer to an attempt. An answer after the deadline is useless."""
        self.trouble = ""
        if attempt.token is None:
            self.holder = attempt.holder
            self._next(now + self._ttl * _RETRY * (0.75 + self._spread() / 2))
            return
        self.token, self.holder = attempt.token, ""
        self._succeeded(sent)
        if not self._is_stopped:
            self.phase = Phase.LEADING
            self.look(now)

    def renewed(self, is_held: bool, sent: float) -> None:
        """Handle the answer to a renewal."""
        self.trouble = ""
        if is_held:
            self._succeeded(sent)
            return
        self._is_lost = True
        if self._is_stopped:
            self._end()
        else:
            self.phase, self._due = Phase.RESIGNING, inf

    def failed(self, why: str, sent: float, now: float) -> None:
        """Handle a request that failed or was late: its effect is unknown."""
        self.trouble, self.holder = why, ""
        if self._is_releasing:
            self._end()  # the lease expires
        else:
            self._next(max(now, sent + self._ttl * _RETRY))

    def released(self) -> None:
        """Handle a successful release."""
        self.trouble = ""
        self._end()

    def may_be_vacant(self, now: float) -> None:
        """Send a request soon, with a random delay, so that not all candidates do it at once."""
        if self.phase is Phase.STANDBY:
            self._due = min(self._due, now + self._ttl * _SPREAD * self._spread())

    # Events of the service.

    def look(self, now: float) -> None:
        """Resign after the deadline. Must be called at the time `due`, and after a suspension."""
        if self.phase is Phase.LEADING and now >= self._sent + self._ttl * _DEADLINE:
            self.phase = Phase.RESIGNING

    def resign(self) -> None:
        """Handle a service that begins to stop. The lease is renewed until it has stopped."""
        if self.phase is Phase.LEADING:
            self.phase = Phase.RESIGNING

    def stopped(self, now: float) -> None:
        """Handle a service that has stopped, or is no candidate any more: release the role."""
        if self.phase is Phase.ENDED:
            return
        self.phase, self._is_stopped, self._due = Phase.RESIGNING, True, now
        if self._is_lost or not self._has_asked:
            self._end()

    def _succeeded(self, sent: float) -> None:
        self._sent = sent
        self._next(sent + self._ttl * _RETRY)

    def _next(self, due: float) -> None:
        if not self._is_stopped:  # otherwise the release is already due
            self._due = due

    def _end(self) -> None:
        self.phase, self._due = Phase.ENDED, inf
