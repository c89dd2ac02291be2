"""A handover: old workers stop accepting, and new workers, which are ready, begin to accept.

The old workers are asked first. The new ones accept when the old ones have reported that they have stopped.
So no worker that is about to leave accepts a client that another could serve. Meanwhile clients wait in the
kernel's queue.
"""

from collections.abc import Callable, Iterable

from tamed.supervisor.generation import Worker, WorkerState
from tamed.supervisor.loop import Reactor
from tamed.supervisor.watchdog import Watchdog
from tamed.supervisor.workers import WorkerPool

__all__ = ["Handovers"]

_PATIENCE = 0.5  # seconds to wait for the reports of busy old workers before the new ones accept


class Handovers:
    """Runs handovers, possibly several at a time."""

    def __init__(self, pool: WorkerPool, watchdog: Watchdog, reactor: Reactor) -> None:
        self._pool = pool
        self._watchdog = watchdog
        self._reactor = reactor
        self._waiting: list[tuple[set[Worker], Callable[[], None]]] = []

    def begin(
        self, old: Iterable[Worker], new: Iterable[Worker], done: Callable[[], object] = lambda: None
    ) -> None:
        """Drain the old workers, then open the new ones, which are ready, and call ``done``.

        The old ones must end within the ``stop_timeout`` of their plan.
        """
        leaving, coming = set(old), list(new)
        busy = {worker for worker in leaving if worker.state is WorkerState.READY}
        for worker in leaving:
            self.drain([worker], worker.generation.plan.stop_timeout)

        def finish() -> None:
            if entry in self._waiting:
                self._waiting.remove(entry)
                for worker in coming:
                    self._pool.open(worker)
                done()

        entry = (busy, finish)
        self._waiting.append(entry)
        if busy:
            self._reactor.later(_PATIENCE, finish)
        else:
            finish()

    def drain(self, workers: Iterable[Worker], seconds: float) -> None:
        """Drain workers that are not replaced; they must end within so many seconds."""
        leaving = list(workers)
        for worker in leaving:
            self._pool.drain(worker)
        self._watchdog.kill_after(leaving, seconds)

    def worker_shut(self, worker: Worker) -> None:
        """Handle a worker that has stopped accepting or has ended."""
        for busy, finish in list(self._waiting):
            if worker in busy:
                busy.remove(worker)
                if not busy:
                    finish()
