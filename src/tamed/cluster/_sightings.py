"""When a lease in a store without expiry has run out, by the clock of the one who wants it.

A record in such a store says how long its holder may stay silent. Each renewal changes the version of the
record. Who has seen the same version for so long knows that it was not renewed in that time, as it began to
wait after the record was written. So no two clocks are compared: they only have to run at about the same
rate. The price is that one who has just come waits for the whole time, also after a holder that has long been
dead.

The record is then taken with a condition on the version that was seen, which fails if the holder has renewed.
"""

from collections.abc import Callable, Hashable
from typing import NamedTuple

from tamed._os.boot_clock import boot_time

__all__ = ["Sightings"]


class _Sighting(NamedTuple):
    version: Hashable
    since: float


class Sightings:
    """The last versions of records that others hold; ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        self._seen: dict[str, _Sighting] = {}

    def has_run_out(self, record: str, version: Hashable, seconds: float) -> bool:
        """Note that this version of a record was read just now; return whether that was so for so long."""
        now = self._clock()
        seen = self._seen.get(record)
        if seen is None or seen.version != version:
            seen = self._seen[record] = _Sighting(version, now)
        return now - seen.since >= seconds
