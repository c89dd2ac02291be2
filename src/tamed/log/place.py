"""Where a log goes, as plain data."""

from typing import NamedTuple

__all__ = ["LogPlan"]


class LogPlan(NamedTuple):
    """Where the log goes: ``kind`` is file, stderr, syslog or journal; ``layout`` is how a line looks.

    ``path`` is that of the file; it is rotated after ``rotate`` bytes, and ``every`` so many seconds (None:
    never), and ``keep`` old ones stay (None: all), and beyond these, up to ``max_use`` bytes in
    all, those of the last ``keep_for`` seconds. ``address`` is where syslog is, if not on this machine.
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
