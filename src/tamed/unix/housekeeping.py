"""What a daemon has on disk, looked after once a second: whatever of it is lost is created again.

A run directory is swept with ``/tmp``, goes with a login session, or is removed by hand. The daemon lives on,
and must be found again. If a file cannot be created again, or the log or a socket fails, that is logged once
and is in the status of the daemon as long as it lasts.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tamed.errors import TamedError, reason

__all__ = ["INTERVAL", "Duty", "Housekeeping"]

INTERVAL = 1.0
"""Seconds between two looks."""


class Duty(NamedTuple):
    """Something to look after: ``housekeep`` does what is due, and tells whether it was created again.

    Nothing after one that ``is_base`` can be done without it.
    """

    what: str
    housekeep: Callable[[], bool]
    is_base: bool = False


class Housekeeping:
    """Does ``duties``, in order.

    ``log`` writes to the log, and ``changed`` is called with all that is wrong whenever that changes.
    ``housekeep_log`` does what is due for the log, and returns what is wrong with it; ``lost_sockets``
    returns the addresses of those whose file is gone.
    """

    def __init__(
        self,
        *,
        log: Callable[[str, str], None],
        changed: Callable[[Sequence[str]], None],
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
        """Do what is due; return all that is wrong."""
        log_trouble = self._housekeep_log()
        found = [*self._do_duties(), *self._lost()]
        for trouble in found:
            if trouble not in self._logged:
                self._log("WARNING", trouble)
        self._logged = set(found)
        troubles = [*found, *([log_trouble] if log_trouble else [])]  # of which the log itself tells
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
            yield f"nobody can connect to {address}: its file is gone; reload to bind it anew"
