"""The destination of a log and its rotation, as plain data; and the interface of a destination."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tamed.errors import ConfigurationError

if TYPE_CHECKING:
    from tamed.log.record import Record

__all__ = ["LogPlan", "Rotation", "Sink", "is_journal", "parse_address"]

_LOCAL = "/dev/log"


class LogPlan(NamedTuple):
    """The destination of the log: ``kind`` is file, stderr, syslog or journal; ``layout`` names the format.

    ``path`` is the path of the file. The other fields for a file are those of `Rotation`; its ``size`` is
    ``rotate`` here. ``address`` is the socket of syslog, if it is not ``/dev/log``.
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
        """When the file is rotated, and which old files are kept."""
        return Rotation(self.rotate, self.every, self.keep, self.compress, self.keep_for, self.max_use)


class Rotation(NamedTuple):
    """When a log file is rotated, and which old files are kept.

    ``size`` is in bytes: a file does not grow beyond it, unless one record alone is longer. ``every`` is in
    seconds, counted in local time: 3600 means on the hour and 86400 at midnight. Either may be None, and
    both may be given. ``keep`` is the number of old files that are kept; None keeps all. With ``compress``
    they become ``.gz``.

    More than ``keep`` files are kept if their last line was written less than ``keep_for`` seconds ago and
    all old files together have at most ``max_use`` bytes (None: no limit). So a client that makes a daemon
    log much cannot erase today's log. If ``keep`` and ``keep_for`` are both 0, no old file is kept.
    """

    size: int | None = 1_000_000
    every: float | None = None
    keep: int | None = 10
    compress: bool = False
    keep_for: float = 0.0
    max_use: int | None = None

    def check(self) -> None:
        """Raise ConfigurationError for invalid numbers."""
        if self.size is not None and self.size <= 0:
            raise ConfigurationError(f"rotate a log at {self.size} bytes", "the size must be above 0")
        if self.every is not None and self.every < 1:
            raise ConfigurationError(
                f"rotate a log every {self.every:g} seconds", "the interval must be at least a second"
            )
        if self.keep is not None and self.keep < 0:
            raise ConfigurationError(
                f"keep {self.keep} old logs", "the number must not be negative", "0 keeps none"
            )
        if self.keep_for < 0 or (self.max_use or 0) < 0:
            why = "neither may be negative"
            raise ConfigurationError(f"keep old logs for {self.keep_for:g} s in {self.max_use} bytes", why)

    @property
    def keeps_none(self) -> bool:
        """Whether no old file is kept, not even a young one."""
        return self.keep == 0 and not self.keep_for

    def is_young(self, written: float, now: float) -> bool:
        """Return whether ``keep_for`` protects a file whose last line was written at ``written``."""
        return written > now - self.keep_for

    def period(self, now: float) -> int:
        """Return the number of the period between two rotations, by the local clock; 0 without ``every``."""
        if self.every is None:
            return 0
        return int((now + time.localtime(now).tm_gmtoff) // self.every)

    def is_due(self, filled: int, more: int, begun: int, now: float) -> bool:
        """Return whether a rotation is due before ``more`` bytes are added to ``filled``.

        ``begun`` is the period of the file's content. An empty file is never rotated. A clock that is set
        back, as at the end of summer time, does not cause a rotation.
        """
        if not filled:
            return False
        too_long = self.size is not None and filled + more > self.size
        return too_long or self.period(now) > begun


class Sink(Protocol):
    """A destination of the log; the defaults are for one without a file.

    ``takes_origin`` is whether it uses the origins of records.
    """

    takes_origin: bool = True

    @property
    def lost(self) -> int:
        """The number of lines lost since it was opened."""

    @property
    def trouble(self) -> str:
        """A sentence about the current failures; empty if there are none."""
        return ""

    def write(self, records: "Sequence[Record]") -> None:
        """Write records, in order."""

    def reopen(self) -> str:
        """Open the file again, because it was renamed; return the reason of a failure, or an empty text."""
        return ""

    def housekeep(self) -> None:
        """Do the periodic work; to be called about once a second."""

    @property
    def child(self) -> int:
        """The pid of the sink's running child; 0 if there is none."""
        return 0

    def child_ended(self, pid: int, status: int) -> bool:
        """Finish a child that was reaped with this wait status; return False if it is not the sink's."""
        return False

    def disown(self) -> None:
        """In a forked child: only write, and leave rotation and the like to the parent."""

    def export(self) -> list[Any]:
        """Return the loss that the next program has to report, as plain data."""
        return []

    def resume(self, left: Sequence[Any]) -> None:
        """Add the loss that the previous program had yet to report."""
        return

    def close(self) -> None:
        """Write what can still be written, and close the destination."""


def parse_address(text: str) -> Path:
    """Parse ``unix:/PATH``; an empty text is ``/dev/log``. Raises ValueError, which states the format."""
    path = text.removeprefix("unix:") if text else _LOCAL
    if not path.startswith("/") or path == text:
        raise ValueError(f"{text!r}: expected unix:/path, a socket of this machine")
    return Path(path)


def is_journal(environ: Mapping[str, str], descriptor: int = 2) -> bool:
    """Return whether a descriptor is connected to the journal.

    systemd states the file's device and inode in ``JOURNAL_STREAM`` (systemd.exec(5)). A child inherits the
    variable but may have another file, so both are compared.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
