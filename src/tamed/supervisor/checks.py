"""The results of service checks, combined over all serving workers.

Each worker reports the results of its checks when they change. A check fails if it fails in one worker: the
clients of that worker suffer. A worker without a result does not count, so that replacing a worker does
not make the daemon unready.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from tamed.ipc.message import InvalidMessage, Message, read_objects, read_text, read_truth
from tamed.supervisor.platform import Platform

__all__ = ["Check", "CheckSummary", "ServiceChecks", "read_checks"]

_MOST: Final = 100  # services with a check
_LONGEST: Final = 300  # characters of a name, and of a reason


class Check(NamedTuple):
    """The check of a service in one worker; ``why`` is empty if it passes, None if it is unknown."""

    name: str
    gates: bool
    why: str | None


class CheckSummary(NamedTuple):
    """A check over all workers: it fails in ``failing`` of ``asked`` workers; ``why`` is the first reason."""

    name: str
    gates: bool
    asked: int
    failing: int
    why: str


class ServiceChecks:
    """Combines the checks, and records an event when one begins to fail or passes again.

    ``results`` returns the checks of each worker that serves.
    """

    def __init__(self, results: Callable[[], Iterable[Iterable[Check]]], platform: Platform) -> None:
        self._results = results
        self._platform = platform
        self._failing: dict[str, str] = {}

    def summaries(self) -> list[CheckSummary]:
        """Return all checks, in the order of the services."""
        found: dict[str, CheckSummary] = {}
        for checks in self._results():
            for name, gates, why in checks:
                before = found.get(name, CheckSummary(name, gates, 0, 0, ""))
                found[name] = CheckSummary(
                    name,
                    gates,
                    before.asked + (why is not None),
                    before.failing + bool(why),
                    before.why or why or "",
                )
        return list(found.values())

    @property
    def failing(self) -> list[CheckSummary]:
        """The checks that fail."""
        return [each for each in self.summaries() if each.failing]

    def look(self) -> None:
        """Record changes as events. Must be called after each report and each end of a worker."""
        for each in self.summaries():
            if each.failing and each.name not in self._failing:
                text = f"the check of {each.name} fails: {each.why}"
                self._platform.record("check", text, service=each.name, outcome="failed")
                self._failing[each.name] = each.why
            elif each.asked and not each.failing and self._failing.pop(each.name, None) is not None:
                text = f"the check of {each.name} passes again"
                self._platform.record("check", text, service=each.name, outcome="passed")

    def export(self) -> dict[str, str]:
        """Return the checks that fail, for the next program."""
        return self._failing

    def resume(self, left: dict[str, str]) -> None:
        """Resume from what the previous program has exported."""
        self._failing = dict(left)


def read_checks(message: Message) -> list[Check]:
    """Return the checks that a worker reports. Raises InvalidMessage."""
    return [_read_check(each) for each in read_objects(message, "checks")[:_MOST]]


def _read_check(data: dict[str, Any]) -> Check:
    why = data.get("why")
    if not isinstance(why, str | None):
        raise InvalidMessage("why: expected a text or null")
    name = read_text(data, "name")[:_LONGEST]
    return Check(name, read_truth(data, "gates"), None if why is None else why[:_LONGEST])
