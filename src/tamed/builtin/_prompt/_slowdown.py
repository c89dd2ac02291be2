"""How long a failed login has to wait, by where it came from."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Slowdown"]


@dataclass
class _Failures:
    count: int
    last: float


class Slowdown:
    """Makes guessing slow: each failure from a host doubles what the next one there has to wait.

    It begins with ``first`` seconds and ends at ``longest``. A host from which none has failed for ``memory``
    seconds begins anew, and so has the one of ``most`` hosts that failed the longest time ago when there is
    another. ``now`` is the clock.
    """

    def __init__(
        self,
        *,
        first: float = 0.5,
        longest: float = 30.0,
        memory: float = 600.0,
        most: int = 1000,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._longest = longest
        self._memory = memory
        self._most = most
        self._now = now
        self._hosts: OrderedDict[str, _Failures] = OrderedDict()

    def failed(self, host: str) -> float:
        """Take note of a failure; return the seconds to wait before it is told."""
        now = self._now()
        known = self._hosts.pop(host, None)
        count = known.count + 1 if known is not None and now - known.last < self._memory else 1
        self._hosts[host] = _Failures(count, now)
        if len(self._hosts) > self._most:
            self._hosts.popitem(last=False)
        # Beyond 2**63 there is no point in doubling.
        return min(self._first * 2.0 ** min(count - 1, 63), self._longest)

    def succeeded(self, host: str) -> None:
        """Forget the failures of a host."""
        self._hosts.pop(host, None)
