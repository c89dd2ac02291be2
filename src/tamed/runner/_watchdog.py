"""Looking after workers: one that does not answer, or does not become ready, is put down.

Before it ends it gets SIGABRT, at which it writes the stacks of its threads to the log (faulthandler), also
while it is blocked outside of Python.

Every deadline is a time in the record of the worker. A timer only says that it is time to look at the
records, so a supervisor that takes another's place has all deadlines with the records.
"""

import signal
from collections.abc import Iterable, Mapping

from tamed.runner._reactor import Reactor
from tamed.runner._station import Station
from tamed.runner._worker_record import Worker, WorkerState

__all__ = ["Watchdog"]

_ABORT_GRACE = 5.0  # seconds that writing the stacks may take


class Watchdog:
    """Looks after the workers in a mapping that others keep.

    A ready worker may be silent for as long as the ``watchdog`` of its plan says, and any may take its
    ``start_timeout`` to become ready. ``interval`` says how often to look, in seconds.
    """

    def __init__(
        self, interval: float, workers: Mapping[int, Worker], reactor: Reactor, station: Station
    ) -> None:
        self.interval = interval
        self._workers = workers
        self._reactor = reactor
        self._station = station
        self._due = reactor.clock()

    @property
    def is_content(self) -> bool:
        """Whether every worker answers."""
        return all(self._trouble_with(worker) is None for worker in self._workers.values())

    def watch(self) -> None:
        """Look after the workers from now on."""
        now = self._reactor.clock()
        # Stopped, say: what the workers have said is not read yet.
        was_held_up = now > self._due + self.interval
        self._due = now + self.interval
        self._reactor.later(self.interval, self.watch)
        if not was_held_up:
            self._look()

    def _look(self) -> None:
        for worker in list(self._workers.values()):
            trouble = self._trouble_with(worker)
            if trouble is not None and worker.state is not WorkerState.STUCK:
                self._station.say(
                    "ERROR", f"worker {worker.pid} {trouble}: its stacks follow, and it is ended"
                )
                self.put_down(worker)

    def see_off(self, workers: Iterable[Worker], seconds: float) -> None:
        """Put those down that are still there after so many seconds."""
        leave_by = self._reactor.clock() + seconds
        for worker in workers:
            worker.leave_by = leave_by
        self._reactor.later(seconds, self._enforce)

    def put_down(self, worker: Worker) -> None:
        """End a worker by force, after it has written its stacks."""
        worker.state = WorkerState.STUCK
        worker.kill_at = self._reactor.clock() + _ABORT_GRACE
        self._station.signal(worker.pid, signal.SIGABRT)
        self._reactor.later(_ABORT_GRACE, self._enforce)

    def resume(self) -> None:
        """Heed the deadlines that are in the records already, and look after the workers from now on."""
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
                    worker.kill_at = now + _ABORT_GRACE  # should it still be there after the next exec
                    self._station.kill(worker.pid)
            elif worker.leave_by is not None and now >= worker.leave_by:
                self._station.say(
                    "ERROR", f"worker {worker.pid} does not stop: its stacks follow, and it is ended"
                )
                self.put_down(worker)

    def _trouble_with(self, worker: Worker) -> str | None:
        now, plan = self._reactor.clock(), worker.generation.plan
        if worker.state is WorkerState.STUCK:
            return "is stuck"
        if worker.is_to_answer and now - worker.heard > plan.watchdog:
            return f"has not answered for {plan.watchdog:g} s"
        if worker.is_on_the_way and now - worker.started > plan.start_timeout:
            return f"was not ready after {plan.start_timeout:g} s"
        return None
