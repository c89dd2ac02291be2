"""Handovers: old workers stop accepting, and new workers, which are ready, begin to accept.

The old workers are asked first. The new ones accept when the old ones have reported that they have stopped.
So no worker that is about to leave accepts a client that another could serve. Meanwhile clients wait in the
kernel's queue. Scaling and recycling are handovers of single workers.
"""

from collections.abc import Callable, Iterable

from tamed._os.limits import most_workers
from tamed._os.text import counted
from tamed.errors import ExitStatus
from tamed.ipc.handoff import Data
from tamed.supervisor.generation import Serving, Worker, WorkerState
from tamed.supervisor.loop import Reactor, Timer
from tamed.supervisor.operations import Operation, fault
from tamed.supervisor.platform import Platform
from tamed.supervisor.recovery import Recovery
from tamed.supervisor.watchdog import Watchdog
from tamed.supervisor.workers import WorkerPool

__all__ = ["Handovers", "Scaler"]

_PATIENCE = 0.5  # seconds to wait for the reports of busy old workers before the new ones accept
_SLACK = 60.0  # seconds in addition to the start timeout, for one more worker to become ready


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


class Scaler:
    """Scales the serving generation, and recycles; ``scaled`` is called with the outcome of scaling."""

    def __init__(
        self,
        serving: Serving,
        pool: WorkerPool,
        handovers: Handovers,
        recovery: Recovery,
        platform: Platform,
        *,
        scaled: Callable[[Data], object],
    ) -> None:
        self._pool = pool
        self._handovers = handovers
        self._recovery = recovery
        self._reactor = platform.reactor
        self._platform = platform
        self._serving = serving
        self._scaled = scaled
        self._scaling: Timer | None = None
        self._began = 0.0
        self._facts: Data = {}  # facts of the current scaling, for its event

    def end(self) -> None:
        """Stop waiting for the end of scaling."""
        if self._scaling is not None:
            self._scaling.cancel()
            self._scaling = None

    def resume(self) -> None:
        """Resume; the previous program may have ended before it let ready workers accept."""
        for worker in self._ready():
            self._pool.open(worker)

    # Another number.

    def refusal(self, count: int, *, yes: bool = False) -> str:
        """Return the reason why this number is refused, or an empty text; ``yes`` confirms a large number."""
        if count < 1:
            return "at least one worker is needed"
        most = most_workers(self._platform.cpus, yes=yes)
        if count <= most:
            return ""
        return f"at most {most} workers" + ("" if yes else ", or more with --yes")

    def begin(self, operation: Operation) -> None:
        """Scale to the number of an operation, within the limits."""
        count = self._serving.generation.count if operation.workers is None else operation.workers
        wanted = count + operation.change
        if operation.change:
            most = max(count, most_workers(self._platform.cpus))
            if not 1 <= wanted <= most:
                why = "at least one worker is needed" if wanted < 1 else f"at most {most} workers"
                self._platform.log("WARNING", f"cannot scale: {why}")
                wanted = min(max(wanted, 1), most)
        operation.set_workers(wanted)
        if self._scaling is None:
            self._began = self._reactor.clock()
            self._facts = {"from": self._serving.generation.count}
        self._facts |= {"to": wanted, "asked": operation.asked or None}
        self._scale(wanted)

    def _scale(self, count: int) -> None:
        generation = self._serving.generation
        if count != generation.count:
            self._platform.log("INFO", f"{counted(count, 'worker')} from now on")
        generation.count = count
        self._wait_for_scaling()
        others = [worker for worker in self._pool.of(generation) if worker.number > count]
        self._handovers.begin([worker for worker in others if not worker.is_surplus], ())
        self._recovery.look()
        self._finish_if_scaled()

    def worker_ready(self, worker: Worker) -> None:
        """Let a ready worker accept; drain the worker that it replaces, if any."""
        old = worker.replaces
        worker.replaces = None
        self._handovers.begin([] if old is None else [old], [worker])
        if self._scaling is not None:
            self._wait_for_scaling()
        self._finish_if_scaled()

    def failed(self, why: str, status: int) -> None:
        """Answer the callers of scaling: a worker could not be started, or did not become ready."""
        if self._scaling is not None:
            count, ready = self._serving.generation.count, len(self._ready())
            line = f"{ready} of {count} workers are ready, retrying the others: {why}"
            self._end_scaling(fault(line, status=status), line, outcome="failed")

    # Recycling.

    def recycle(self, worker: Worker, why: str) -> bool:
        """Begin to replace a worker: it drains when another is ready. Return whether that has begun."""
        is_going = any(each.replaces is not None and not each.pid for each in self._pool.everyone)
        is_going |= any(each.replaces is worker for each in self._pool.everyone)
        if is_going or worker not in self._staying() or not self._pool.has_room(worker.generation):
            return False
        text = f"worker {worker.pid} {why}: replacing it"
        self._platform.log("INFO", text)
        self._platform.record("recycle", text, **worker.facts())
        return self._recovery.spawn(worker.number, worker)

    def worker_ended(self, worker: Worker) -> None:
        """Handle the end of a worker: its replacement, if already starting, becomes an ordinary worker."""
        for each in self._pool.everyone:
            if each.replaces is worker:
                each.replaces = None

    def _staying(self) -> list[Worker]:
        return self._pool.staying(self._serving.generation)

    def _ready(self) -> list[Worker]:
        return [worker for worker in self._staying() if worker.state is WorkerState.READY]

    def _finish_if_scaled(self) -> None:
        ready = len(self._ready())
        if self._scaling is not None and ready == self._serving.generation.count:
            self._end_scaling({"scaled": ready}, f"{counted(ready, 'worker')} from now on")

    def _wait_for_scaling(self) -> None:
        self.end()
        seconds = self._serving.generation.plan.start_timeout + _SLACK
        why = f"no worker has become ready for {seconds:g} s"
        self._scaling = self._reactor.later(seconds, lambda: self.failed(why, ExitStatus.SOFTWARE))

    def _end_scaling(self, answer: Data, text: str, outcome: str = "done") -> None:
        self.end()
        took = round(self._reactor.clock() - self._began, 3)
        self._platform.record("scale", text, **self._facts, outcome=outcome, took=took)
        self._scaled(answer)
