"""What the workers used in the last ten minutes: memory, CPU and connections, in steps of five seconds."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["SPAN", "STEP", "History", "Sample"]

SPAN: Final = 600.0
"""Seconds that are kept."""

STEP: Final = 5.0
"""Seconds between two samples."""

_MOST: Final = 1000  # workers whose samples are kept


class Sample(NamedTuple):
    """What a worker used at a time: bytes, the share of a CPU since the sample before, and connections.

    None stands for what is not known.
    """

    time: float
    memory: float | None
    cpu: float | None
    connections: float | None


class _Worker:
    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=round(SPAN / STEP))
        self.seen: Sample | None = None  # the last look, with the CPU time that was used up to then
        self.latest: Sample | None = None


class History:
    """Keeps samples of the workers that are there, by their pids."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        self._sampled: float | None = None

    def add(self, now: float, workers: Iterable[Mapping[str, Any]]) -> None:
        """Add what the workers use now, as a status has it. ``now`` is in seconds on a monotonic clock."""
        is_due = self._sampled is None or now - self._sampled >= STEP * 0.9  # of what comes a little early
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
        """Return what a worker used at the last look."""
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
