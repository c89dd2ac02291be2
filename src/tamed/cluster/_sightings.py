"""Expiry of leases in a store without expiry, by the clock of the waiting process.

A record in such a store contains the time that its holder may be silent. Each renewal changes the version of
the record. A process that has seen the same version for this time knows that it was not renewed, because it
began to wait after the record was written. So clocks are not compared: they only have to run at about the
same rate. The price is that a new process waits for the full time, even after a holder that died long ago.

The record is then replaced on condition of the seen version, which fails if the holder has renewed.
"""

from collections.abc import Callable, Hashable
from typing import NamedTuple

from tamed._os.boot_clock import boot_time

__all__ = ["Sightings"]


class _Sighting(NamedTuple):
    version: Hashable
    since: float


class Sightings:
    """The last seen versions of records of other holders; ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        self._seen: dict[str, _Sighting] = {}

    def has_run_out(self, record: str, version: Hashable, seconds: float) -> bool:
        """Record a version that was just read; return whether it has been the same for ``seconds``."""
        now = self._clock()
        seen = self._seen.get(record)
        if seen is None or seen.version != version:
            seen = self._seen[record] = _Sighting(version, now)
        return now - seen.since >= seconds
