"""The scaler: which workers a generation lacks, and which of them take the place of others.

Workers come up a few at a time, as many as there are CPUs: more at once would be ready no sooner, and would
leave no time for those that serve.
"""

from collections.abc import Callable, Iterable

from tamed.errors import ExitStatus
from tamed.ipc.handoff import Data
from tamed.supervisor.generation import Generation, Worker, WorkerState
from tamed.supervisor.loop import Reactor, Timer
from tamed.supervisor.operations import fault
from tamed.supervisor.platform import Platform
from tamed.supervisor.watchdog import Watchdog
from tamed.supervisor.workers import WorkerPool

__all__ = ["Handovers", "Scaler"]


_PATIENCE = 0.5  # seconds that an old worker may be too busy to hear it before clients wait no longer


class Handovers:
    """Conducts handovers, several at a time if need be."""

    def __init__(self, pool: WorkerPool, watchdog: Watchdog, reactor: Reactor) -> None:
        self._pool = pool
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
            self._pool.drain(worker)
            self._watchdog.kill_after([worker], worker.generation.plan.stop_timeout)

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

    def heard(self, worker: Worker) -> None:
        """Take note that a worker lets nobody in any more, or that it is gone."""
        for busy, finish in list(self._waiting):
            if worker in busy:
                busy.remove(worker)
                if not busy:
                    finish()


_FEWEST_AT_ONCE = 2
_SCALE_SLACK = 60.0  # seconds, beside the time for a start, without another worker that is ready


class Scaler:
    """Scales and recycles.

    ``serving`` is asked for the generation. ``spawn`` starts a worker of it, by its number, to take the place
    of another, and ``reconcile`` starts what it lacks. ``scaled`` is called with what has come of scaling.
    """

    def __init__(
        self,
        pool: WorkerPool,
        handovers: Handovers,
        reactor: Reactor,
        platform: Platform,
        *,
        serving: Callable[[], Generation],
        spawn: Callable[[int, Worker | None], bool],
        reconcile: Callable[[], object],
        scaled: Callable[[Data], object],
    ) -> None:
        self._pool = pool
        self._handovers = handovers
        self._reactor = reactor
        self._platform = platform
        self._serving = serving
        self._spawn = spawn
        self._reconcile = reconcile
        self._scaled = scaled
        self._scaling: Timer | None = None

    # Starting what is missing.

    def fill(self, generation: Generation) -> None:
        """Start workers that a generation lacks, as far as they need not wait for others.

        To be called again when one of them has come further. Raises OSError if the system has no room.
        """
        for number in self.missing(generation):
            if not self.has_room(generation):
                break
            self._pool.spawn(generation, number)

    def have_come(self, generation: Generation, *states: WorkerState) -> bool:
        """Tell whether a generation has all its workers, and each is in one of these states."""
        pool = self._pool.of(generation)
        return len(pool) >= generation.count and all(worker.state in states for worker in pool)

    def missing(self, generation: Generation) -> Iterable[int]:
        """Return the numbers of the workers that a generation is to have and has not."""
        numbers = {worker.number for worker in self._staying(generation)}
        return [number for number in range(1, generation.count + 1) if number not in numbers]

    def has_room(self, generation: Generation) -> bool:
        """Tell whether another worker may be started now. Those that wait for others take no time."""
        coming = [
            each
            for each in self._pool.of(generation)
            if each.state in (WorkerState.LOADING, WorkerState.STARTING)
        ]
        return len(coming) < max(_FEWEST_AT_ONCE, self._platform.cpus)

    def end(self) -> None:
        """Bring up no other number of workers any more."""
        self._cancel_scaling()

    def resume(self) -> None:
        """Go on where the program before has stopped, which was perhaps about to let workers serve."""
        for worker in self._ready():
            self._pool.open(worker)

    # Another number.

    def scale(self, count: int) -> None:
        """Have so many workers of the serving generation from now on."""
        generation = self._serving()
        if count != generation.count:
            self._platform.log("INFO", f"{count} worker{'s' * (count > 1)} from now on")
        generation.count = count
        self._wait_for_scaling()
        surplus = [worker for worker in self._pool.of(generation) if worker.number > count]
        self._handovers.begin([worker for worker in surplus if not worker.is_surplus], ())
        self._reconcile()
        self._look()

    def came(self, worker: Worker) -> None:
        """Let a worker serve that has become ready, in the place of another if it was spawned for that."""
        old, worker.replaces = worker.replaces, None
        self._handovers.begin([] if old is None else [old], [worker])
        if self._scaling is not None:
            self._wait_for_scaling()
        self._look()

    def failed(self, why: str, status: int) -> None:
        """Hear that a worker could not be started or did not become ready: whoever has scaled is told."""
        if self._scaling is not None:
            count, ready = self._serving().count, len(self._ready())
            line = f"{ready} of {count} workers are ready, others are tried again: {why}"
            self._end_scaling(fault(line, status=status))

    # A worker in the place of another.

    def recycle(self, worker: Worker, why: str) -> bool:
        """Replace a worker without a loss: another one is ready before it goes. Tell whether that begins."""
        is_going = any(each.replaces is worker for each in self._pool.workers.values())
        if is_going or worker not in self._staying() or not self.has_room(worker.generation):
            return False
        self._platform.log("INFO", f"worker {worker.pid} {why}: another one takes its place")
        return self._spawn(worker.number, worker)

    def left(self, worker: Worker) -> None:
        """Hear that a worker has ended: who was to take its place has it."""
        for each in self._pool.workers.values():
            if each.replaces is worker:
                each.replaces = None

    def holder(self, number: int) -> Worker | None:
        """Return the worker of this number, which may be on its way, or None."""
        return next((worker for worker in self._staying() if worker.number == number), None)

    def _staying(self, generation: Generation | None = None) -> list[Worker]:
        """Return the workers of a generation that are not about to be replaced or to leave."""
        return [
            each
            for each in self._pool.of(generation or self._serving())
            if not each.is_surplus and each.replaces is None
        ]

    def _ready(self) -> list[Worker]:
        return [worker for worker in self._staying() if worker.state is WorkerState.READY]

    def _look(self) -> None:
        ready = len(self._ready())
        if self._scaling is not None and ready == self._serving().count:
            self._end_scaling({"scaled": ready})

    def _wait_for_scaling(self) -> None:
        self._cancel_scaling()
        seconds = self._serving().plan.start_timeout + _SCALE_SLACK
        told = f"none has become ready for {seconds:g} s"
        self._scaling = self._reactor.later(seconds, lambda: self.failed(told, ExitStatus.SOFTWARE))

    def _cancel_scaling(self) -> None:
        if self._scaling is not None:
            self._scaling.cancel()
            self._scaling = None

    def _end_scaling(self, outcome: Data) -> None:
        self._cancel_scaling()
        self._scaled(outcome)
