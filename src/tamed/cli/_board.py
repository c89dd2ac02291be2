"""The table of ``tamed top``: instances and their workers, sorted and filtered. Pure: it reads no clock."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tamed._os.text import counted, shown
from tamed.cli._text import cell, size, table, uptime
from tamed.cli.status import failed_reload

__all__ = ["SORTS", "Board", "Row"]

_HEAD: Final = ("INSTANCE", "#", "PID", "GENERATION", "STATE", "UP", "CONNECTIONS", "MEMORY", "CPU")


class Row(NamedTuple):
    """A worker: ``uptime`` in seconds, ``memory`` in bytes, ``cpu`` as a share of one CPU (None: unknown)."""

    instance: str
    number: int
    pid: int
    generation: int
    state: str
    uptime: float
    connections: int
    memory: int
    cpu: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts in the columns."""
        return (
            cell(self.instance),
            str(self.number),
            str(self.pid),
            str(self.generation),
            cell(self.state),
            uptime(self.uptime),
            str(self.connections),
            size(self.memory),
            "" if self.cpu is None else f"{self.cpu * 100:.0f} %",
        )


SORTS: Final[Mapping[str, Callable[[Row], float]]] = {
    "CPU": lambda row: row.cpu or 0.0,
    "memory": lambda row: row.memory,
    "connections": lambda row: row.connections,
}
"""The sort keys by name; rows are sorted in descending order."""


class Board:
    """The last statuses, the filter and sort order, and the selected worker.

    ``sort`` is one of `SORTS`. ``pattern`` is a text that a row must contain. ``selected`` is the pid of a
    worker; the selection follows it when rows move.
    """

    def __init__(self) -> None:
        self.sort = "CPU"
        self.pattern = ""
        self.selected = 0
        self._found: Sequence[Mapping[str, Any]] = ()
        self._shares: dict[int, float | None] = {}
        self._times: dict[int, tuple[float, float]] = {}  # CPU seconds, and the time of the measurement

    def update(self, found: Sequence[Mapping[str, Any]], now: float) -> None:
        """Store new statuses; an instance without one has the reason as ``error``. ``now`` is in seconds."""
        before, self._times, self._shares = self._times, {}, {}
        for worker in (worker for status in found for worker in status.get("workers", ())):
            pid, cpu = worker["pid"], worker["cpu"]
            if cpu is None:
                continue
            self._times[pid] = cpu, now
            used, seen = before.get(pid, (cpu, now))
            self._shares[pid] = max(0.0, cpu - used) / (now - seen) if now > seen else None
        self._found = found

    def rows(self) -> list[Row]:
        """Return the workers that match, sorted."""
        rows = [row for row in self._all() if self.pattern in " ".join(row.cells)]
        return sorted(rows, key=lambda row: (-SORTS[self.sort](row), row.instance, row.number, row.pid))

    def selection(self) -> Row | None:
        """Return the selected worker, or the first row if it is gone; None if no row matches."""
        rows = self.rows()
        return next((row for row in rows if row.pid == self.selected), rows[0] if rows else None)

    def move(self, steps: int) -> None:
        """Move the selection down by ``steps`` rows; up if negative."""
        pids = [row.pid for row in self.rows()]
        if pids:
            chosen = self.selection()
            at = 0 if chosen is None else pids.index(chosen.pid)
            self.selected = pids[max(0, min(at + steps, len(pids) - 1))]

    def head(self) -> Iterator[tuple[str, str]]:
        """Yield the state and a line for each instance, then ``warning`` lines for its problems."""
        for status in self._found:
            name = cell(status["name"])
            if "workers" not in status:
                yield "unknown", shown(f"{name}: {cell(status['error'])}")
                continue
            yield status["state"], shown(_summary(status))
            yield from (("warning", f"  {shown(cell(why))}") for why in _wrong(status))

    def table(self) -> list[str]:
        """Return the lines of the table, the head first."""
        return list(table(_HEAD, [row.cells for row in self.rows()]))

    def _all(self) -> Iterator[Row]:
        for status in self._found:
            for worker in status.get("workers", ()):
                yield Row(
                    status["name"],
                    worker["number"],
                    worker["pid"],
                    worker["generation"],
                    worker["state"],
                    worker["uptime"],
                    worker.get("connections", 0),
                    worker["memory"] or 0,
                    self._shares.get(worker["pid"]),
                )


def _summary(status: Mapping[str, Any]) -> str:
    reloading = ", reloading" if status["reloading"] else ""
    facts = [
        f"pid {status['pid']}",
        f"up {uptime(status['uptime'])}",
        f"{status['ready']} of {status['wanted']} workers ready",
        counted(sum(worker.get("connections", 0) for worker in status["workers"]), "connection"),
        size(sum(worker["memory"] or 0 for worker in status["workers"])),
    ]
    if status["restarts"]:
        facts.append(counted(status["restarts"], "restart"))
    return f"{cell(status['name'])} is {cell(status['state'])}{reloading}: {', '.join(facts)}"


def _wrong(status: Mapping[str, Any]) -> Iterator[str]:
    if (reload := failed_reload(status)) is not None:
        yield f"last reload, at {reload['time']}: {reload['text']}"
    if status["state"] == "running":
        return
    for check in status["checks"]:
        if check["failing"]:
            yield f"the check of {check['name']} fails: {check['why']}"
    if status["last_error"]:
        yield f"last error, at {status['last_error_at']}: {status['last_error']}"
