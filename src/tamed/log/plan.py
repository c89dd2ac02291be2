"""Where a log goes and when it is rotated, as plain data."""

import time
from typing import NamedTuple

from tamed.errors import ConfigurationError

__all__ = ["LogPlan", "Rotation"]


class LogPlan(NamedTuple):
    """Where the log goes: ``kind`` is file, stderr, syslog or journal; ``layout`` is how a line looks.

    ``path`` is that of the file; it is rotated after ``rotate`` bytes, and ``every`` so many seconds (None:
    never), and ``keep`` old ones stay (None: all), and beyond these, up to ``max_use`` bytes in
    all, those of the last ``keep_for`` seconds. ``address`` is where syslog is, if not at ``/dev/log``.
    """

    kind: str = "stderr"
    layout: str = "plain"
    path: str = ""
    rotate: int | None = None
    every: float | None = None
    keep: int | None = None
    compress: bool = False
    keep_for: float = 0.0
    max_use: int | None = None
    address: str = ""

    @property
    def rotation(self) -> "Rotation":
        """When the file is rotated, and what stays of it."""
        return Rotation(self.rotate, self.every, self.keep, self.compress, self.keep_for, self.max_use)


class Rotation(NamedTuple):
    """When a log begins a new file, and how many old ones stay.

    ``size`` is in bytes: a file is not grown beyond it, unless one record alone is longer. ``every`` is in
    seconds, counted in local time: 3600 means on the hour and 86400 at midnight. Either may be None, and
    both may be given. ``keep`` is the number of old files that stay; None keeps all. With ``compress`` they
    become ``.gz``.

    Beyond ``keep``, files stay whose last line was written less than ``keep_for`` seconds ago, as far as all
    old files together are no more than ``max_use`` bytes (None: no limit). So nobody who makes a daemon log
    much can have it forget what happened today. ``keep`` is 0 and so is ``keep_for``: no file stays.
    """

    size: int | None = 1_000_000
    every: float | None = None
    keep: int | None = 10
    compress: bool = False
    keep_for: float = 0.0
    max_use: int | None = None

    def check(self) -> None:
        """Raise ConfigurationError for numbers that make no sense."""
        if self.size is not None and self.size <= 0:
            raise ConfigurationError(f"rotate a log at {self.size} bytes", "a size is above 0")
        if self.every is not None and self.every < 1:
            raise ConfigurationError(f"rotate a log every {self.every:g} seconds", "that is under a second")
        if self.keep is not None and self.keep < 0:
            raise ConfigurationError(f"keep {self.keep} old logs", "a number is not below 0", "0 keeps none")
        if self.keep_for < 0 or (self.max_use or 0) < 0:
            why = "neither is below 0"
            raise ConfigurationError(f"keep old logs for {self.keep_for:g} s in {self.max_use} bytes", why)

    @property
    def keeps_none(self) -> bool:
        """Whether no old file stays, not even one that was written just now."""
        return self.keep == 0 and not self.keep_for

    def is_young(self, written: float, now: float) -> bool:
        """Tell whether a file whose last line is of ``written`` stays beyond ``keep``, if there is room."""
        return written > now - self.keep_for

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
