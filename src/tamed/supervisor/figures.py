"""The supervisor's counters for the operations endpoint: ends of workers, and reloads."""

import signal

from tamed.ipc.handoff import Data
from tamed.supervisor.generation import Worker, WorkerState

__all__ = ["Figures", "reason_of"]

_OK, _FAILED = "ok", "failed"
_USUAL = ("wanted", "application", "fault", "status", "stuck", "SIGABRT", "SIGKILL", "SIGSEGV")
"""Reasons that start at zero: Prometheus sees no increase in a series whose first value is one."""


class Figures:
    """Counts from the start of the daemon, also over upgrades.

    ``ends`` counts ended workers by reason (see `reason_of`). ``reloads`` counts reloads by result, ``ok`` or
    ``failed``; ``reload_seconds`` is how long all of them took, and ``last_reload`` how long the last one.
    """

    def __init__(self) -> None:
        self.ends = dict.fromkeys(_USUAL, 0)
        self.reloads = {_OK: 0, _FAILED: 0}
        self.reload_seconds = {_OK: 0.0, _FAILED: 0.0}
        self.last_reload: float | None = None

    def worker_ended(self, worker: Worker, code: int, *, is_stopping: bool) -> None:
        """Count an ended worker."""
        reason = "wanted" if is_stopping and code in (0, -signal.SIGTERM) else reason_of(worker, code)
        self.ends[reason] = self.ends.get(reason, 0) + 1

    def reloaded(self, seconds: float, *, failed: bool) -> None:
        """Count a reload."""
        result = _FAILED if failed else _OK
        self.reloads[result] += 1
        self.reload_seconds[result] += seconds
        self.last_reload = seconds

    def to_data(self) -> Data:
        """Return this as data."""
        return {
            "ends": self.ends,
            "reloads": self.reloads,
            "reload_seconds": self.reload_seconds,
            "last_reload": self.last_reload,
        }

    def resume(self, left: Data) -> None:
        """Resume from the data of the previous program."""
        self.ends |= left["ends"]
        self.reloads = left["reloads"]
        self.reload_seconds = left["reload_seconds"]
        self.last_reload = left["last_reload"]


def reason_of(worker: Worker, code: int) -> str:
    """Return the reason for a worker's end, as a label.

    ``stuck``: it did not answer; ``wanted``: it ended on request; ``fault``: it reported a failure;
    ``application``: the application ended by its own choice; the name of a signal: it was killed by it;
    ``status``: none of these.
    """
    if worker.state is WorkerState.STUCK:
        return "stuck"
    if worker.is_leaving and code in (0, -signal.SIGTERM):
        return "wanted"
    if worker.fault is not None:
        return "fault"
    if worker.leaving is not None:
        return "application"
    if code >= 0:
        return "status"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
