"""The workers of the serving generation: replacing lost ones, scaling, and recycling.

The wanted and the actual workers are known at any time, so there is no list of workers to start:
`Recovery.look` compares the two and starts the missing workers. It is called whenever either may have
changed. Nothing else replaces lost workers or raises the number of workers.

Consecutive failed attempts are counted for each worker's number. They have no time limit: an import that
takes a minute and then raises is one attempt. A worker that has served for some seconds resets the count; a
worker that becomes ready and dies at once, over and over, does not.
"""

import time
from collections.abc import Callable

from tamed._os.limits import most_workers
from tamed._os.text import counted
from tamed.errors import ExitStatus, from_os_error
from tamed.ipc.handoff import Data
from tamed.service.restart import Backoff
from tamed.supervisor.generation import Serving, Worker, WorkerState
from tamed.supervisor.loop import NO_TIMER, Timer
from tamed.supervisor.operations import History, Operation, fault
from tamed.supervisor.platform import Platform
from tamed.supervisor.rollout import Handovers
from tamed.supervisor.workers import WorkerPool

__all__ = ["Recovery", "Scaler"]

_ATTEMPTS = 10
_STEADY = 10.0  # seconds of service that reset the count
_BACKOFF = Backoff(first=0.1, factor=2.0, maximum=30.0)
_SLACK = 60.0  # seconds in addition to the start timeout, for one more worker to become ready


class Recovery:
    """Brings the serving generation to its number of workers, while the daemon is running.

    ``failed`` is called with the reason and the status of each failed attempt. ``restarts`` is the number of
    lost workers that were replaced. ``last_error`` is the last failure, and ``failed_at`` its time, in
    seconds since the epoch.
    """

    def __init__(self, serving: Serving, pool: WorkerPool, platform: Platform) -> None:
        self.restarts = 0
        self.last_error = ""
        self.failed_at: float | None = None
        self._pool = pool
        self._reactor = platform.reactor
        self._platform = platform
        self._serving = serving
        self.failed: Callable[[str, int], object] = lambda *_: None
        self._failures: dict[int, int] = {}
        self._refusals: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self._replacing: set[int] = set()  # the numbers of lost workers whose replacements are requested
        self._timer = NO_TIMER

    def spawn(self, number: int, replaces: Worker | None = None) -> bool:
        """Start a worker, perhaps to replace another; return whether the system could start it.

        A shortage of descriptors, processes or memory does not count as an attempt: it is temporary, and no
        worker has failed.
        """
        try:
            self._pool.spawn(self._serving.generation, number, replaces)
        except OSError as error:
            self._refuse(number, error)
            return False
        return True

    def refused(self, worker: Worker, error: OSError) -> None:
        """Schedule another attempt for a requested worker that was not forked."""
        self._replacing.discard(worker.number)
        self._refuse(worker.number, error)

    def forked(self, worker: Worker) -> None:
        """Count a forked worker that replaces a lost one."""
        if worker.replaces is None and worker.number in self._replacing:
            self._replacing.remove(worker.number)
            self.restarts += 1
            text = f"worker {worker.pid} replaces a lost worker"
            self._platform.record("restart", text, **worker.facts())

    def _refuse(self, number: int, error: OSError) -> None:
        refused = from_os_error("a worker cannot be started", error)
        why = str(refused)
        self._remember(why)
        self._refusals[number] = self._refusals.get(number, 0) + 1
        self._platform.log("ERROR", f"{why}; trying again in {self._wait(number):.1f} s")
        self._platform.record("restart", why, worker=number, outcome="failed")
        self.failed(why, refused.status)

    def lost(self, worker: Worker, code: int, *, is_served: bool) -> bool:
        """Count a worker that has ended before it was ready, or without a request to stop.

        ``is_served`` means that others serve, or are about to. Return whether to continue: False if no worker
        serves and no attempt is left. The end of a worker that has served for a while is no failed attempt.
        """
        number, why = worker.number, worker.how_it_ended(code)
        self._remember(why)
        served = 0.0 if worker.ready is None else self._reactor.clock() - worker.ready
        self._failures[number] = 0 if served >= _STEADY else self._failures.get(number, 0) + 1
        if not self._failures[number]:
            self._refusals[number] = 0
        wait = self._wait(number, is_first=worker.ready is not None and self._failures[number] == 1)
        if (holder := self._pool.holder(worker.generation, number)) is not None:
            # the worker that it should replace, or its replacement
            self._platform.log("ERROR", f"{why}; worker {holder.pid} replaces it")
        elif is_served or not self._is_exhausted():
            when = f"in {wait:.1f} s" if wait else "now"
            self._platform.log("ERROR", f"{why}; starting another one {when}")
            if worker.ready is None:
                self.failed(why, worker.status)
        else:
            self._platform.log("CRITICAL", f"{why}; no worker serves, and no attempt is left: stopping")
            return False
        return True

    def _remember(self, error: str) -> None:
        self.last_error = error
        self.failed_at = time.time()

    def _wait(self, number: int, *, is_first: bool = False) -> float:
        """Schedule the next attempt; return the seconds until then.

        There are none for the ``is_first`` replacement of a worker that had been ready.
        """
        attempts = self._failures.get(number, 0) - is_first + self._refusals.get(number, 0)
        wait = _BACKOFF.delay(attempts) if attempts else 0.0
        self._due[number] = self._reactor.clock() + wait
        return wait

    def _is_exhausted(self) -> bool:
        """Whether every worker's number has used up its attempts."""
        count = self._serving.generation.count
        return all(self._failures.get(number, 0) >= _ATTEMPTS for number in range(1, count + 1))

    def is_due(self, number: int) -> bool:
        """Whether a worker of this number may be started now."""
        return self._due.get(number, 0.0) <= self._reactor.clock()

    def look(self) -> None:
        """Start the missing workers that are due, and set a timer for the next one."""
        for number in filter(self.is_due, self._missing()):
            if not self._pool.has_room(self._serving.generation):
                break
            was_lost = self._due.pop(number, None) is not None
            if self.spawn(number) and was_lost:
                self._replacing.add(number)
        self._timer.cancel()
        waits = [self._due.get(number, 0.0) - self._reactor.clock() for number in self._missing()]
        if waits := [wait for wait in waits if wait > 0]:
            self._timer = self._reactor.later(min(waits), self.look)

    def _missing(self) -> list[int]:
        return self._pool.missing(self._serving.generation) if self._serving.is_running else []

    def export(self) -> Data:
        """Return this as data, for the next program."""
        return {
            "restarts": self.restarts,
            "last_error": self.last_error,
            "failed_at": self.failed_at,
            "failures": list(self._failures.items()),
            "refusals": list(self._refusals.items()),
            "due": list(self._due.items()),
        }

    def resume(self, left: Data) -> None:
        """Resume from the state of the previous program."""
        self._failures = dict(left["failures"])
        self._refusals = dict(left["refusals"])
        self._due = dict(left["due"])
        self.restarts = left["restarts"]
        self.last_error = left["last_error"]
        self.failed_at = left["failed_at"]

    def reset(self) -> None:
        """Reset all counts, because other workers serve from now on."""
        self._failures.clear()
        self._refusals.clear()
        self._due.clear()
        self._replacing.clear()


class Scaler:
    """Scales the serving generation, and recycles; ``scaled`` is called with the outcome of scaling.

    A failed attempt of ``recovery`` to start a worker is an outcome.
    """

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
        recovery.failed = self.failed
        self._reactor = platform.reactor
        self._platform = platform
        self._serving = serving
        self._scaled = scaled
        self._scaling: Timer | None = None
        self._history = History(platform, "scale")

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
            self._history = History(self._platform, "scale", **{"from": self._serving.generation.count})
        self._history.facts |= {"to": wanted, "asked": operation.asked or None}
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
            workers, name = counted(ready, "worker"), self._serving.generation.plan.name
            self._end_scaling({"scaled": f"{name} has {workers}"}, f"{workers} from now on")

    def _wait_for_scaling(self) -> None:
        self.end()
        seconds = self._serving.generation.plan.start_timeout + _SLACK
        why = f"no worker has become ready for {seconds:g} s"
        self._scaling = self._reactor.later(seconds, lambda: self.failed(why, ExitStatus.SOFTWARE))

    def _end_scaling(self, answer: Data, text: str, outcome: str = "done") -> None:
        self.end()
        self._history.record(text, outcome=outcome)
        self._scaled(answer)
