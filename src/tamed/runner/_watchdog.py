"""Looking after workers: one that does not answer, or does not become ready, is put down.

Before it ends it gets SIGABRT, at which it writes the stacks of its threads to the log (faulthandler), also
while it is blocked outside of Python.
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
                worker.state = WorkerState.STUCK
                self._station.say(
                    "ERROR", f"worker {worker.pid} {trouble}: its stacks follow, and it is ended"
                )
                self.put_down(worker)

    def see_off(self, workers: Iterable[Worker], seconds: float) -> None:
        """Put those down that are still there after so many seconds."""
        leaving = list(workers)

        def look() -> None:
            for worker in leaving:
                if self._workers.get(worker.pid) is worker:
                    self._station.say(
                        "ERROR", f"worker {worker.pid} does not stop: its stacks follow, and it is ended"
                    )
                    self.put_down(worker)

        self._reactor.later(seconds, look)

    def put_down(self, worker: Worker) -> None:
        """End a worker by force, after it has written its stacks."""
        self._station.signal(worker.pid, signal.SIGABRT)

        def kill() -> None:
            if self._workers.get(worker.pid) is worker:
                self._station.kill(worker.pid)

        self._reactor.later(_ABORT_GRACE, kill)

    def _trouble_with(self, worker: Worker) -> str | None:
        now, plan = self._reactor.clock(), worker.generation.plan
        if worker.state is WorkerState.STUCK:
            return "is stuck"
        if worker.is_to_answer and now - worker.heard > plan.watchdog:
            return f"has not answered for {plan.watchdog:g} s"
        if worker.is_on_the_way and now - worker.started > plan.start_timeout:
            return f"was not ready after {plan.start_timeout:g} s"
        return None
