"""Scaling: another number of workers, and a worker in the place of another, without a loss."""

from collections.abc import Callable

from tamed._os.limits import most_workers
from tamed.errors import ExitStatus
from tamed.ipc.handoff import Data
from tamed.supervisor.generation import Generation, Worker, WorkerState
from tamed.supervisor.handover import Handovers
from tamed.supervisor.loop import Reactor, Timer
from tamed.supervisor.operations import Operation, fault
from tamed.supervisor.platform import Platform
from tamed.supervisor.recovery import Recovery
from tamed.supervisor.workers import WorkerPool

__all__ = ["Scaler"]

_SLACK = 60.0  # seconds, beside the time for a start, without another worker that is ready


class Scaler:
    """Scales and recycles.

    ``serving`` is asked for the generation, and ``scaled`` is called with what has come of scaling.
    """

    def __init__(
        self,
        pool: WorkerPool,
        handovers: Handovers,
        recovery: Recovery,
        reactor: Reactor,
        platform: Platform,
        *,
        serving: Callable[[], Generation],
        scaled: Callable[[Data], object],
    ) -> None:
        self._pool = pool
        self._handovers = handovers
        self._recovery = recovery
        self._reactor = reactor
        self._platform = platform
        self._serving = serving
        self._scaled = scaled
        self._scaling: Timer | None = None

    def end(self) -> None:
        """Bring up no other number of workers any more."""
        self._cancel_scaling()

    def resume(self) -> None:
        """Go on where the program before has stopped, which was perhaps about to let workers serve."""
        for worker in self._ready():
            self._pool.open(worker)

    # Another number.

    def refusal(self, count: int, *, yes: bool = False) -> str:
        """Return why there cannot be so many workers, or nothing; ``yes`` says that many are meant."""
        if count < 1:
            return "one worker is the least"
        most = most_workers(self._platform.cpus, yes=yes)
        if count <= most:
            return ""
        return f"{most} workers are the most" + ("" if yes else ", unless --yes says that more are meant")

    def begin(self, operation: Operation) -> None:
        """Have as many workers from now on as an operation says, and no more than there may be."""
        count = self._serving().count if operation.workers is None else operation.workers
        wanted = count + operation.change
        if operation.change:
            most = max(count, most_workers(self._platform.cpus))
            if not 1 <= wanted <= most:
                why = "one worker is the least" if wanted < 1 else f"{most} workers are the most"
                self._platform.log("WARNING", f"cannot scale: {why}")
                wanted = min(max(wanted, 1), most)
        operation.settle_on(wanted)
        self._scale(wanted)

    def _scale(self, count: int) -> None:
        generation = self._serving()
        if count != generation.count:
            self._platform.log("INFO", f"{count} worker{'s' * (count > 1)} from now on")
        generation.resize(count)
        self._wait_for_scaling()
        others = [worker for worker in self._pool.of(generation) if worker.number > count]
        self._handovers.begin([worker for worker in others if not worker.is_surplus], ())
        self._recovery.look()
        self._finish_if_scaled()

    def worker_ready(self, worker: Worker) -> None:
        """Let a worker serve that has become ready, in the place of another if it was spawned for that."""
        old = worker.replaces
        worker.replace(None)
        self._handovers.begin([] if old is None else [old], [worker])
        if self._scaling is not None:
            self._wait_for_scaling()
        self._finish_if_scaled()

    def failed(self, why: str, status: int) -> None:
        """Answer the callers of a scaling: a worker could not be started, or did not become ready."""
        if self._scaling is not None:
            count, ready = self._serving().count, len(self._ready())
            line = f"{ready} of {count} workers are ready, others are tried again: {why}"
            self._end_scaling(fault(line, status=status))

    # A worker in the place of another.

    def recycle(self, worker: Worker, why: str) -> bool:
        """Replace a worker without a loss: another one is ready before it goes. Tell whether that begins."""
        is_going = any(each.replaces is worker for each in self._pool.workers.values())
        if is_going or worker not in self._staying() or not self._pool.has_room(worker.generation):
            return False
        self._platform.log("INFO", f"worker {worker.pid} {why}: another one takes its place")
        return self._recovery.spawn(worker.number, worker)

    def worker_ended(self, worker: Worker) -> None:
        """Let the worker that was to take the place of this one have it."""
        for each in self._pool.workers.values():
            if each.replaces is worker:
                each.replace(None)

    def _staying(self) -> list[Worker]:
        return self._pool.staying(self._serving())

    def _ready(self) -> list[Worker]:
        return [worker for worker in self._staying() if worker.state is WorkerState.READY]

    def _finish_if_scaled(self) -> None:
        ready = len(self._ready())
        if self._scaling is not None and ready == self._serving().count:
            self._end_scaling({"scaled": ready})

    def _wait_for_scaling(self) -> None:
        self._cancel_scaling()
        seconds = self._serving().plan.start_timeout + _SLACK
        why = f"none has become ready for {seconds:g} s"
        self._scaling = self._reactor.later(seconds, lambda: self.failed(why, ExitStatus.SOFTWARE))

    def _cancel_scaling(self) -> None:
        if self._scaling is not None:
            self._scaling.cancel()
            self._scaling = None

    def _end_scaling(self, outcome: Data) -> None:
        self._cancel_scaling()
        self._scaled(outcome)
