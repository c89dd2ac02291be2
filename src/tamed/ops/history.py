"""The workers' use of memory, CPU and connections in the last ten minutes, in steps of five seconds."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["SPAN", "STEP", "History", "Sample"]

SPAN: Final = 600.0
"""Seconds of history."""

STEP: Final = 5.0
"""Seconds between two samples."""

_MOST: Final = 1000  # workers whose samples are kept


class Sample(NamedTuple):
    """A worker's use at a time: memory in bytes, the share of a CPU since the last sample, connections.

    None means unknown.
    """

    time: float
    memory: float | None
    cpu: float | None
    connections: float | None


class _Worker:
    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=round(SPAN / STEP))
        self.seen: Sample | None = None  # the last measurement, with the CPU time used up to then
        self.latest: Sample | None = None


class History:
    """Keeps samples of the current workers, by pid."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        self._sampled: float | None = None

    def add(self, now: float, workers: Iterable[Mapping[str, Any]]) -> None:
        """Add the workers' current use, from a status. ``now`` is in seconds on a monotonic clock."""
        is_due = self._sampled is None or now - self._sampled >= STEP * 0.9  # it may come early
        if is_due:
            self._sampled = now
        there = {worker["pid"]: worker for worker in list(workers)[:_MOST]}
        self._workers = {pid: self._workers.get(pid) or _Worker() for pid in there}
        for pid, worker in there.items():
            kept = self._workers[pid]
            before, seen = kept.seen, _sample(now, worker)
            cpu = None if before is None else _share(before, seen)
            kept.seen = seen
            kept.latest = seen._replace(cpu=cpu)
            if is_due:
                kept.samples.append(kept.latest)

    def latest(self, pid: int) -> Sample | None:
        """Return the last measurement of a worker."""
        return self._workers[pid].latest if pid in self._workers else None

    def of(self, pid: int) -> list[Sample]:
        """Return the samples of a worker, the oldest first."""
        return list(self._workers[pid].samples) if pid in self._workers else []


def _sample(now: float, worker: Mapping[str, Any]) -> Sample:
    return Sample(now, worker.get("memory"), worker.get("cpu"), worker.get("connections"))


def _share(before: Sample, after: Sample) -> float | None:
    if before.cpu is None or after.cpu is None or after.time <= before.time:
        return None
    return max(0.0, after.cpu - before.cpu) / (after.time - before.time)
