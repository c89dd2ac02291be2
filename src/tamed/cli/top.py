"""The command ``tamed top``: instances and their workers, live, with keys to look closer."""

import os
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from tamed.cli.instances import directory_of, ending
from tamed.cli.status import last_state, stack_lines
from tamed.control.instances import find_instance, reload_instance, stacks_of_instance, status_of_instance
from tamed.control.records import last_states, log_of_instance
from tamed.errors import ConfigurationError, TamedError, Unavailable, UsageError
from tamed.log.reader import LogReader
from tamed.log.search import EntryReader, Filter
from tamed.unix.rundir import RunDirectory

if TYPE_CHECKING:
    from tamed.cli._screen import Row

__all__ = ["LiveInstances", "top"]

_GLANCE: Final = 6.0  # seconds for an instance to answer; its workers have 5
_LINES: Final = 2000  # of a log, in which the records of a worker are searched


def top(name: str | None, rundir: str | None) -> None:
    """Show the instances, or one, until the user quits."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in (None, "", "dumb"):
        raise UsageError("tamed top", "it needs a terminal", "use tamed status --watch")
    directory = directory_of(rundir)
    if name is not None or not directory.running():
        try:
            find_instance(directory, name)  # raises, with the reason
        except Unavailable as error:
            raise Unavailable(_why_not(directory, name, error)) from error
    try:
        from tamed.cli._screen import Screen
    except ModuleNotFoundError as error:
        what = f"{error.name} is not installed"
        raise ConfigurationError("tamed top", what, "pip install 'tamed[top]'") from error
    Screen(LiveInstances(directory, name)).run()


def _why_not(directory: RunDirectory, name: str | None, error: TamedError) -> str:
    """Return how an instance has ended, or, if that is unknown, why it cannot be asked."""
    left = last_state(directory, name) if isinstance(error, Unavailable) else None
    return str(error) if left is None else "; ".join(ending(left))


class LiveInstances:
    """The instances of a run directory, or the one of a name: what they do, and how to reload them."""

    def __init__(self, directory: RunDirectory, name: str | None) -> None:
        self._directory = directory
        self._name = name

    def look(self) -> list[dict[str, Any]]:
        """Return the statuses of the instances; one without, or that has ended, has an ``error``."""
        if self._name is not None:
            return [self._glance(self._name)]
        names = {each.name for each in self._directory.running()}
        names |= {each.name for each in last_states(self._directory) if each.state != "stopped"}
        return [self._glance(name) for name in sorted(names)]

    def _glance(self, name: str) -> dict[str, Any]:
        try:
            return status_of_instance(find_instance(self._directory, name), _GLANCE)
        except TamedError as error:
            return {"name": name, "error": _why_not(self._directory, name, error)}

    def stacks(self, row: "Row") -> list[str]:
        """Return lines with the stacks of a worker."""
        found = stacks_of_instance(find_instance(self._directory, row.instance))
        lines = [line for worker in found if worker["pid"] == row.pid for line in stack_lines(worker)]
        return lines or [f"worker {row.pid} has ended"]

    def log(self, row: "Row") -> list[str]:
        """Return the last lines of the log that the worker of this number wrote."""
        path, owner = log_of_instance(self._directory, row.instance)
        entries = EntryReader()
        with closing(LogReader(path, owner)) as reader:
            found = [*entries.feed(reader.last(_LINES)), *entries.flush()]
        records = Filter(worker=row.number).apply(found)
        lines = [line for entry in records for line in entry.text.split("\n")]
        return lines or [f"there are no records of worker {row.number}"]

    def reload(self, row: "Row") -> str:
        """Reload the instance of a worker; return the outcome, on one line."""
        instance = find_instance(self._directory, row.instance)
        text, _ = reload_instance(instance, lambda _: None)
        return text.splitlines()[-1]
