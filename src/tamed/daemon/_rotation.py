"""When a log begins a new file, and how many old ones stay: arithmetic."""

import time
from typing import NamedTuple

from tamed.errors import ConfigurationError

__all__ = ["Rotation"]


class Rotation(NamedTuple):
    """When a log begins a new file, and how many old ones stay.

    ``size`` is in bytes: a file is not grown beyond it, unless one record alone is longer. ``every`` is in
    seconds, counted in local time: 3600 means on the hour and 86400 at midnight. Either may be None, and
    both may be given. ``keep`` is the number of old files that stay; None keeps all. With ``compress`` they
    become ``.gz``.
    """

    size: int | None = 1_000_000
    every: float | None = None
    keep: int | None = 10
    compress: bool = False

    def check(self) -> None:
        """Raise ConfigurationError for numbers that make no sense."""
        if self.size is not None and self.size <= 0:
            raise ConfigurationError(f"rotate a log at {self.size} bytes", "a size is above 0")
        if self.every is not None and self.every < 1:
            raise ConfigurationError(f"rotate a log every {self.every:g} seconds", "that is under a second")
        if self.keep is not None and self.keep < 0:
            raise ConfigurationError(f"keep {self.keep} old logs", "a number is not below 0", "0 keeps none")

    def period(self, now: float) -> int:
        """Number the times between two rotations, by the local clock; 0 if time does not count."""
        if self.every is None:
            return 0
        return int((now + time.localtime(now).tm_gmtoff) // self.every)

    def is_due(self, filled: int, more: int, begun: int, now: float) -> bool:
        """Tell whether a new file is due before ``more`` bytes are added to ``filled``.

        ``begun`` is the period of what is in the file. An empty file is never rotated. A clock that is set
        back, as at the end of summer time, makes nothing due.
        """
        if not filled:
            return False
        too_long = self.size is not None and filled + more > self.size
        return too_long or self.period(now) > begun
