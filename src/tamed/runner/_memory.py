"""A limit to the memory of workers: one that leaks is replaced, without a loss, before the system ends it.

The figure is RssAnon and VmSwap of ``/proc/PID/status`` (proc(5)): what a worker has allocated, in memory or
swapped out. Files that are mapped are not in it, as they are shared and can be dropped; what forked workers
still share with their template is, for each. To read it takes 25 microseconds, however large the worker is.
A share that is exact (Pss of ``smaps_rollup``) took 46 milliseconds of a worker of 340 MB, and the supervisor
does nothing else meanwhile.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from tamed.runner._generation import Generation
from tamed.runner._reactor import Reactor
from tamed.runner._station import Station
from tamed.runner._worker_record import Worker, WorkerState

__all__ = ["MemoryLimit", "memory_of"]

_LOOK = 3.0  # seconds between two measurements
_TIMES = 3  # in a row above the limit: a peak is no leak
_FIRST_HOLD = 60.0  # seconds that a worker serves at least, after one that was soon above the limit again
_LONGEST_HOLD = 600.0


class _Course:
    """What is known of a worker: how often in a row it was above the limit, and whether the log says so."""

    def __init__(self) -> None:
        self.above = 0
        self.is_told = False


class MemoryLimit:
    """Has workers replaced that were above the ``max_worker_memory`` of their plan several times in a row.

    ``workers`` are kept by others; only those of the generation that ``serving`` returns count. ``recycle``
    is asked to replace one, with the reason, and tells whether it does. That happens to one at a time.

    A limit below what a worker needs must not keep workers starting for ever. So a worker that takes the
    place of one which was soon above it serves for some time first, twice as long with each, and so does one
    that was above it already when it became ready. The log is warned of it.
    """

    def __init__(
        self,
        workers: Mapping[int, Worker],
        reactor: Reactor,
        station: Station,
        *,
        serving: Callable[[], Generation],
        recycle: Callable[[Worker, str], bool],
    ) -> None:
        self._workers = workers
        self._reactor = reactor
        self._station = station
        self._serving = serving
        self._recycle = recycle
        self._courses: dict[int, _Course] = {}
        self._holds: dict[int, float] = {}

    def watch(self) -> None:
        """Look after the workers from now on."""
        self._reactor.later(_LOOK, self.watch)
        generation = self._serving()
        self._courses = {pid: course for pid, course in self._courses.items() if pid in self._workers}
        if generation.plan.max_worker_memory is not None:
            self._look(generation, generation.plan.max_worker_memory)

    def began(self, worker: Worker) -> None:
        """Measure what a worker needs: what it has when it is ready, and has served nobody yet."""
        worker.needs = self._station.memory(worker.pid)

    def _look(self, generation: Generation, limit: int) -> None:
        above = {}
        for worker in self._workers.values():
            is_serving = worker.state is WorkerState.READY and worker.generation is generation
            if is_serving and (used := self._measured(worker, limit)) is not None:
                above[worker] = used
        if any(worker.replaces is not None and worker.is_on_the_way for worker in self._workers.values()):
            return
        for worker in sorted(above, key=above.__getitem__, reverse=True):
            may_go = self._may_go(worker, above[worker], limit)
            if may_go and self._recycle(worker, _excess(above[worker], limit)):
                self._hold_next(worker)
                return

    def _measured(self, worker: Worker, limit: int) -> int | None:
        """Return what a worker uses if that is too much, and has been for long enough."""
        course = self._courses.setdefault(worker.pid, _Course())
        used = self._station.memory(worker.pid)
        if used is None:  # it has just ended
            return None
        course.above = course.above + 1 if used > limit else 0
        return used if course.above >= _TIMES else None

    def _may_go(self, worker: Worker, used: int, limit: int) -> bool:
        course = self._courses[worker.pid]
        needs_more = worker.needs is not None and worker.needs > limit
        hold = _LONGEST_HOLD if needs_more else self._holds.get(worker.number, 0.0)
        left = hold - self._served(worker)
        if left > 0 and not course.is_told:
            course.is_told = True
            when = "from its beginning" if needs_more else f"{self._served(worker):.0f} s after it was ready"
            doubt = f"is that less than a worker needs? it is replaced in {left:.0f} s if that is still so"
            self._station.say("WARNING", f"worker {worker.pid} {_excess(used, limit)}, {when}: {doubt}")
        return left <= 0

    def _hold_next(self, worker: Worker) -> None:
        """Have the next worker of this number serve for longer if this one was soon above the limit."""
        former = self._holds.get(worker.number, 0.0)
        is_soon = self._served(worker) < _LONGEST_HOLD
        self._holds[worker.number] = min(max(2 * former, _FIRST_HOLD), _LONGEST_HOLD) if is_soon else 0.0

    def _served(self, worker: Worker) -> float:
        return 0.0 if worker.ready is None else self._reactor.clock() - worker.ready


def memory_of(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return how many bytes a process has allocated, in memory or swapped out; None if it is not there."""
    try:
        lines = (proc / str(pid) / "status").read_bytes().splitlines()
    except OSError:  # it has ended, or there is no descriptor to read it
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith((b"RssAnon:", b"VmSwap:"))]
    return 1024 * sum(found) if found else None


def _excess(used: int, limit: int) -> str:
    return f"uses {used / 1e6:.1f} MB, more than {limit / 1e6:.1f} MB (max-worker-memory)"
