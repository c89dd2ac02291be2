"""Restart policies and backoff: arithmetic only, without a clock or tasks."""

import math
import os
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple, Self

__all__ = ["Backoff", "Restart", "RestartBudget"]


def _random() -> float:
    # Not `random`: it loads hashlib, which fails when no descriptor is free.
    return int.from_bytes(os.urandom(4), "big") / 2**32


class _BackoffValues(NamedTuple):
    first: float
    factor: float
    maximum: float
    jitter: float


class Backoff(_BackoffValues):
    """Exponential backoff with jitter, so that many clients do not retry at the same time.

    ``first`` and ``maximum`` are seconds. Each wait is ``factor`` times the one before, at most ``maximum``,
    plus or minus a random part of up to ``jitter`` times the wait. Raises ValueError for values out of range.
    """

    __slots__ = ()

    def __new__(
        cls, first: float = 0.1, factor: float = 2.0, maximum: float = 30.0, jitter: float = 0.1
    ) -> Self:
        """Check the values."""
        if not 0 <= first <= maximum < math.inf:
            raise ValueError("a backoff needs 0 <= first <= maximum, in seconds")
        if not (1 <= factor < math.inf and 0 <= jitter <= 1):
            raise ValueError("a backoff needs factor >= 1 and 0 <= jitter <= 1")
        return super().__new__(cls, first, factor, maximum, jitter)

    def delay(self, attempt: int, random: Callable[[], float] = _random) -> float:
        """Return the seconds to wait before an attempt, counted from 1; ``random`` yields [0, 1)."""
        try:
            wait = min(self.first * float(self.factor) ** (attempt - 1), self.maximum)
        except OverflowError:
            wait = self.maximum if self.first else 0.0
        return wait * (1 + self.jitter * (2 * random() - 1))


_When = Literal["never", "on-failure", "always"]


class _RestartValues(NamedTuple):
    when: _When
    limit: int | None
    within: float
    backoff: Backoff


class Restart(_RestartValues):
    """The restart policy of a service: what happens when its ``run`` body raises or returns.

    ``when`` is one of

    - ``"never"``: a body that raises fails its parent; one that returns is finished;
    - ``"on-failure"``: the service of a body that raises is restarted; one that returns is finished;
    - ``"always"``: the service is restarted in both cases.

    More than ``limit`` restarts within ``within`` seconds fail the parent instead (``None``: no limit).
    Raises ValueError for values out of range.
    """

    __slots__ = ()

    def __new__(
        cls,
        when: _When = "never",
        limit: int | None = 5,
        within: float = 60.0,
        backoff: Backoff = Backoff(),  # noqa: B008 - it is immutable
    ) -> Self:
        """Check the values."""
        if when not in ("never", "on-failure", "always"):
            raise ValueError(f"restart {when!r}: expected never, on-failure or always")
        if (limit is not None and limit < 0) or not within > 0:
            raise ValueError("a restart policy needs limit >= 0 and within > 0")
        return super().__new__(cls, when, limit, within, backoff)


class RestartBudget:
    """Counts the restarts of one service against its policy."""

    __slots__ = ("_attempt", "_policy", "_random", "_times")

    def __init__(self, policy: Restart, random: Callable[[], float] = _random) -> None:
        self._policy = policy
        self._random = random
        self._times: deque[float] = deque()
        self._attempt = 0

    def next_delay(self, *, failed: bool, now: float, ran: float) -> float | None:
        """Return the seconds to wait before the next start, or None for no restart.

        ``failed`` is whether the body raised, ``now`` is the time on any monotonic clock, and ``ran`` is the
        time for which the service was up. If that is at least the policy's ``within``, the backoff begins
        again with its first wait.
        """
        policy = self._policy
        if policy.when == "never" or (policy.when == "on-failure" and not failed):
            return None
        while self._times and self._times[0] <= now - policy.within:
            self._times.popleft()
        if policy.limit is not None and len(self._times) >= policy.limit:
            return None
        self._times.append(now)
        self._attempt = 1 if ran >= policy.within else self._attempt + 1
        return policy.backoff.delay(self._attempt, self._random)
