"""The files of a daemon, checked once a second: a missing file or directory is created again.

A run directory may be removed by a clean-up of ``/tmp``, at the end of a login session, or by hand. The
daemon still runs, and commands must find it. If a file cannot be created again, or the log or a socket fails,
that is logged once and stays in the status of the daemon as long as it lasts.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tamed._os.identity import Identity, acting_for
from tamed.errors import TamedError, reason

if TYPE_CHECKING:
    from tamed.unix.rundir import Instance

__all__ = ["INTERVAL", "Duty", "Housekeeping", "InstanceFolder"]

INTERVAL = 1.0
"""Seconds between two checks."""


class Duty(NamedTuple):
    """A file or directory to check: ``housekeep`` returns whether it was created again.

    If one that ``is_base`` fails, those after it are skipped: they depend on it.
    """

    what: str
    housekeep: Callable[[], bool]
    is_base: bool = False


class Housekeeping:
    """Performs ``duties``, in order.

    ``log`` writes to the log, and ``changed`` is called with all troubles when they change.
    ``housekeep_log`` does the periodic work of the log, and returns its trouble; ``lost_sockets`` returns the
    addresses of sockets whose file is missing.
    """

    def __init__(
        self,
        *,
        log: Callable[[str, str], None],
        changed: Callable[[Sequence[str]], object],
        housekeep_log: Callable[[], str],
        lost_sockets: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.duties: list[Duty] = []
        self.troubles: list[str] = []
        self._log = log
        self._changed = changed
        self._housekeep_log = housekeep_log
        self._lost_sockets = lost_sockets
        self._logged: set[str] = set()

    def look(self) -> list[str]:
        """Perform the duties; return all troubles, each as a sentence."""
        log_trouble = self._housekeep_log()
        found = [*self._do_duties(), *self._lost()]
        for trouble in found:
            if trouble not in self._logged:
                self._log("WARNING", trouble)
        self._logged = set(found)
        troubles = [*found, *([log_trouble] if log_trouble else [])]  # the log reports its own trouble
        if troubles != self.troubles:
            self.troubles = troubles
            self._changed(troubles)
        return troubles

    def _do_duties(self) -> Iterator[str]:
        for duty in self.duties:
            try:
                if duty.housekeep():
                    self._log("WARNING", f"{duty.what} was missing and was created again")
            except (OSError, TamedError) as error:
                yield f"{duty.what} is missing, and cannot be created again: {reason(error)}"
                if duty.is_base:
                    return

    def _lost(self) -> Iterator[str]:
        for address in self._lost_sockets():
            yield f"clients cannot connect to {address}: its file is missing; reload to bind it again"


class InstanceFolder:
    """The directory of an instance, which belongs to ``owner``, the user that the daemon runs as."""

    def __init__(self, instance: "Instance", owner: Identity | None = None) -> None:
        self._instance = instance
        self._owner = owner
        self._mode = _mode_of(instance.directory)

    def housekeep(self) -> bool:
        """Create it and the run directory again if they are missing. Raises as `RunDirectory.create` does."""
        mode = _mode_of(self._instance.directory)
        if mode is not None:
            self._mode = mode
            return False
        from tamed.unix.rundir import RunDirectory  # lazy import: it is missing rarely

        RunDirectory(self._instance.directory.parent).create(self._instance.name, self._owner)
        if self._mode is not None:
            with acting_for(self._owner):
                self._instance.directory.chmod(self._mode)
        return True


def _mode_of(directory: Path) -> int | None:
    try:
        status = os.lstat(directory)
    except OSError:
        return None
    return stat.S_IMODE(status.st_mode) if stat.S_ISDIR(status.st_mode) else None
