"""The moment in which workers take the place of others that serve on the same sockets.

The old ones are told to let nobody in any more, and when all have said that they heard it, the new ones are
told to begin. So no client is refused, and none that comes after another is served by older code. Who comes
in between, which is a millisecond as a rule, waits in the kernel's queue.
"""

from collections.abc import Callable, Iterable

from tamed.runner._crew import Crew
from tamed.runner._reactor import Reactor
from tamed.runner._watchdog import Watchdog
from tamed.runner._worker_record import Worker, WorkerState

__all__ = ["Handovers"]

_PATIENCE = 0.5  # seconds that an old worker may be too busy to hear it before clients wait no longer


class Handovers:
    """Conducts handovers, several at a time if need be."""

    def __init__(self, crew: Crew, watchdog: Watchdog, reactor: Reactor) -> None:
        self._crew = crew
        self._watchdog = watchdog
        self._reactor = reactor
        self._waiting: list[tuple[set[Worker], Callable[[], None]]] = []

    def begin(
        self, old: Iterable[Worker], new: Iterable[Worker], done: Callable[[], object] = lambda: None
    ) -> None:
        """Retire the old workers, then open the new ones, which are ready, and call ``done``.

        The old ones have the ``stop_timeout`` of their plan to come to their end.
        """
        leaving, coming = set(old), list(new)
        busy = {worker for worker in leaving if worker.state is WorkerState.READY}
        for worker in leaving:
            self._crew.retire(worker)
            self._watchdog.see_off([worker], worker.generation.plan.stop_timeout)

        def finish() -> None:
            if entry in self._waiting:
                self._waiting.remove(entry)
                for worker in coming:
                    self._crew.open(worker)
                done()

        entry = (busy, finish)
        self._waiting.append(entry)
        if busy:
            self._reactor.later(_PATIENCE, finish)
        else:
            finish()

    def heard(self, worker: Worker) -> None:
        """Take note that a worker lets nobody in any more, or that it is gone."""
        for busy, finish in list(self._waiting):
            if worker in busy:
                busy.remove(worker)
                if not busy:
                    finish()
