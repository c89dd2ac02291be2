"""Checks of workers: answers, readiness and stopping in time, and memory use.

A worker that misses a deadline is aborted: on SIGABRT it writes the stacks of its threads to the log
(faulthandler), even while it is blocked outside Python. A worker that uses too much memory is recycled,
without a lost connection.

Every deadline is an attribute of the `Worker`. A timer only triggers a check of these attributes, so the next
program after an upgrade gets all deadlines with the workers.
"""

import signal
from collections.abc import Callable, Iterable, Mapping

from tamed.supervisor.generation import Generation, Serving, Worker, WorkerState
from tamed.supervisor.platform import Platform

__all__ = ["MemoryLimit", "Watchdog"]


_ABORT_GRACE = 5.0  # seconds to write the stacks
_LOOK = 3.0  # seconds between two measurements
_TIMES = 3  # consecutive measurements above the limit: a peak is not a leak
_FIRST_HOLD = 60.0  # minimum seconds of service, if the previous worker was soon above the limit
_LONGEST_HOLD = 600.0


class Watchdog:
    """Checks the workers in ``workers``, a mapping that the worker pool owns.

    A ready worker may be silent for the ``watchdog`` of its plan, and a worker must be ready within its
    ``start_timeout``. ``interval`` returns the seconds between two checks.
    """

    def __init__(
        self, interval: Callable[[], float], workers: Mapping[int, Worker], platform: Platform
    ) -> None:
        self._interval = interval
        self._workers = workers
        self._reactor = platform.reactor
        self._platform = platform
        self._due = platform.reactor.clock()

    @property
    def cannot_kill(self) -> bool:
        """Whether a worker still exists long after SIGKILL: it hangs in the kernel."""
        now = self._reactor.clock()
        return any(
            worker.kill_at is not None and now > worker.kill_at + _ABORT_GRACE
            for worker in self._workers.values()
        )

    def watch(self) -> None:
        """Check the workers from now on."""
        now, interval = self._reactor.clock(), self._interval()
        # For example by SIGSTOP: the messages of the workers have not been read yet.
        was_held_up = now > self._due + interval
        self._due = now + interval
        self._reactor.later(interval, self.watch)
        if not was_held_up:
            self._look()

    def _look(self) -> None:
        for worker in list(self._workers.values()):
            trouble = self._trouble_with(worker)
            if trouble is not None and worker.state is not WorkerState.STUCK:
                self._platform.log(
                    "ERROR", f"worker {worker.pid} {trouble}: its stacks follow, then it is killed"
                )
                self._platform.record("stuck", f"worker {worker.pid} {trouble}", **worker.facts())
                self.abort(worker)

    def kill_after(self, workers: Iterable[Worker], seconds: float) -> None:
        """Abort the workers that have not ended after so many seconds."""
        leave_by = self._reactor.clock() + seconds
        for worker in workers:
            worker.leave_by = leave_by
        self._reactor.later(seconds, self._enforce)

    def abort(self, worker: Worker) -> None:
        """Make a worker write its stacks, and kill it if that does not end it."""
        worker.abort(self._reactor.clock() + _ABORT_GRACE)
        self._platform.signal(worker.pid, signal.SIGABRT)
        self._reactor.later(_ABORT_GRACE, self._enforce)

    def resume(self) -> None:
        """Set timers for the deadlines of resumed workers, and check the workers from now on."""
        now = self._reactor.clock()
        for worker in self._workers.values():
            for due in (worker.leave_by, worker.kill_at):
                if due is not None:
                    self._reactor.later(max(0.0, due - now), self._enforce)
        self.watch()

    def _enforce(self) -> None:
        """Act on each deadline that has passed."""
        now = self._reactor.clock()
        for worker in list(self._workers.values()):
            if worker.kill_at is not None:
                if now >= worker.kill_at:
                    worker.abort(now + _ABORT_GRACE)  # in case it has not ended after the next exec
                    self._platform.kill(worker.pid)
            elif worker.leave_by is not None and now >= worker.leave_by:
                self._platform.log(
                    "ERROR", f"worker {worker.pid} does not stop: its stacks follow, then it is killed"
                )
                self._platform.record("stuck", f"worker {worker.pid} does not stop", **worker.facts())
                self.abort(worker)

    def _trouble_with(self, worker: Worker) -> str | None:
        now, plan = self._reactor.clock(), worker.generation.plan
        if worker.state is WorkerState.STUCK:
            return "is stuck"
        if worker.must_answer and now - worker.heard > plan.watchdog:
            return f"has not answered for {plan.watchdog:g} s"
        if worker.is_coming and now - worker.started > plan.start_timeout:
            return f"was not ready after {plan.start_timeout:g} s"
        return None


class _Measurements:
    """The measurements of a worker: how often in a row above the limit, and whether a warning was logged."""

    def __init__(self) -> None:
        self.above = 0
        self.is_warned = False


class MemoryLimit:
    """Recycles workers that exceed the ``max_worker_memory`` of their generation several times in a row.

    ``workers`` is a mapping that the worker pool owns; only workers of the serving generation count.
    ``recycle`` is called with a worker and the reason, and returns whether it replaces it. One worker is
    replaced at a time.

    A limit below a worker's needs must not cause endless restarts. So if a worker was soon above
    the limit, the next one serves for a minimum time, which doubles each time. A worker that was above the
    limit when it became ready serves for the longest such time. A warning is logged.
    """

    def __init__(
        self,
        serving: Serving,
        workers: Mapping[int, Worker],
        platform: Platform,
        recycle: Callable[[Worker, str], bool],
    ) -> None:
        self._workers = workers
        self._reactor = platform.reactor
        self._platform = platform
        self._serving = serving
        self._recycle = recycle
        self._measurements: dict[int, _Measurements] = {}
        self._holds: dict[int, float] = {}

    def watch(self) -> None:
        """Measure the workers from now on."""
        self._reactor.later(_LOOK, self.watch)
        generation = self._serving.generation
        self._measurements = {
            pid: measured for pid, measured in self._measurements.items() if pid in self._workers
        }
        if (limit := generation.max_worker_memory) is not None:
            self._look(generation, limit)

    def began(self, worker: Worker) -> None:
        """Measure the memory that a worker needs: its use when it becomes ready, before it serves."""
        worker.needs = self._platform.memory(worker.pid)

    def _look(self, generation: Generation, limit: int) -> None:
        above = {}
        for worker in self._workers.values():
            is_serving = worker.state is WorkerState.READY and worker.generation is generation
            if is_serving and (used := self._measured(worker, limit)) is not None:
                above[worker] = used
        if any(worker.replaces is not None and worker.is_coming for worker in self._workers.values()):
            return
        for worker in sorted(above, key=above.__getitem__, reverse=True):
            may_go = self._may_go(worker, above[worker], limit)
            if may_go and self._recycle(worker, _excess(above[worker], limit)):
                self._hold_next(worker)
                return

    def _measured(self, worker: Worker, limit: int) -> int | None:
        """Return a worker's memory use if several measurements exceeded the limit, else None."""
        measured = self._measurements.setdefault(worker.pid, _Measurements())
        used = self._platform.memory(worker.pid)
        if used is None:  # it has just ended
            return None
        measured.above = measured.above + 1 if used > limit else 0
        return used if measured.above >= _TIMES else None

    def _may_go(self, worker: Worker, used: int, limit: int) -> bool:
        measured = self._measurements[worker.pid]
        needs_more = worker.needs is not None and worker.needs > limit
        hold = _LONGEST_HOLD if needs_more else self._holds.get(worker.number, 0.0)
        left = hold - self._served(worker)
        if left > 0 and not measured.is_warned:
            measured.is_warned = True
            when = "from its beginning" if needs_more else f"{self._served(worker):.0f} s after it was ready"
            consequence = f"it is replaced in {left:.0f} s unless it then uses less"
            advice = f"the limit may be less than a worker needs; {consequence}"
            self._platform.log("WARNING", f"worker {worker.pid} {_excess(used, limit)}, {when}: {advice}")
        return left <= 0

    def _hold_next(self, worker: Worker) -> None:
        """Set the minimum time of the next worker: longer if this one was soon above the limit."""
        former = self._holds.get(worker.number, 0.0)
        is_soon = self._served(worker) < _LONGEST_HOLD
        self._holds[worker.number] = min(max(2 * former, _FIRST_HOLD), _LONGEST_HOLD) if is_soon else 0.0

    def _served(self, worker: Worker) -> float:
        return 0.0 if worker.ready is None else self._reactor.clock() - worker.ready


def _excess(used: int, limit: int) -> str:
    return f"uses {used / 1e6:.1f} MB, more than {limit / 1e6:.1f} MB (max-worker-memory)"
