"""A generation: the workers that run one reading of the files and the code."""

import enum
import signal
from typing import Self

from tamed.errors import ExitStatus
from tamed.ipc.channel import Channel
from tamed.ipc.handoff import Data, Keep
from tamed.supervisor.plan import Plan

__all__ = ["Generation", "Worker", "WorkerState"]


class Generation:
    """What its workers have in common; they know it, and not it them.

    ``count`` is how many workers it is to have: as many as its plan says, until somebody scales it.
    """

    __slots__ = ("count", "number", "plan")

    def __init__(self, number: int, plan: Plan, count: int) -> None:
        self.number = number
        self.plan = plan
        self.count = count

    def resize(self, count: int) -> None:
        """Be to have another number of workers."""
        self.count = count


class WorkerState(enum.Enum):
    """How far a worker is.

    LOADING lasts until it has imported the application and bound what it listens on, and STARTING until its
    services have started; in between, PREPARED, those of one generation wait for each other. DRAINING is one
    that was drained and serves what it has let in to the end, STOPPING one that was asked to stop, and STUCK
    one that has not answered for too long and is ended by force.
    """

    LOADING = "loading"
    PREPARED = "prepared"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STUCK = "stuck"


class Worker:
    """A worker process, from its start until it has been reaped.

    ``number`` counts from 1 in its ``generation``, and its replacement has the same. ``replaces`` is the
    worker that is to go when this one is ready. ``started``, ``ready`` (None before it is) and ``heard`` (of
    its last sign of life) are times of the supervisor's clock. ``needs`` is how many bytes it had allocated
    when it was ready, None where that is not known. ``is_surplus`` says that its end is wanted,
    and has no consequences. ``leave_by`` is when it is to be gone, and ``kill_at`` when it is killed; None if
    there is no such time. ``fault`` is what it said of its failure: the lines to print, and the status.
    ``leaving`` is the status with which its application chose to end.
    """

    def __init__(
        self,
        pid: int,
        number: int,
        generation: Generation,
        channel: Channel,
        *,
        started: float,
        heard: float,
        replaces: "Worker | None" = None,
    ) -> None:
        self.pid = pid
        self.number = number
        self.generation = generation
        self.channel = channel
        self.started = started
        self.heard = heard
        self.ready: float | None = None
        self.needs: int | None = None
        self.state = WorkerState.LOADING
        self.fault: tuple[list[str], int] | None = None
        self.leaving: int | None = None
        self.replaces = replaces
        self.is_surplus = False
        self.leave_by: float | None = None
        self.kill_at: float | None = None

    def come_to(self, state: WorkerState, now: float) -> None:
        """Be in another state of its way to readiness from a moment on."""
        self.state = state
        if state is WorkerState.READY:
            self.ready = now

    def drain(self) -> None:
        """Be drained: its end is wanted, and nobody takes its place."""
        self.is_surplus = True
        self.state = WorkerState.DRAINING

    def stop(self) -> None:
        """Be asked to stop."""
        self.state = WorkerState.STOPPING

    def abort(self, kill_at: float) -> None:
        """Be ended by force, at that time at the latest."""
        self.state = WorkerState.STUCK
        self.kill_at = kill_at

    def have_to_leave(self, by: float) -> None:
        """Be to be gone by a time."""
        self.leave_by = by

    def measure(self, needs: int | None) -> None:
        """Remember how much memory it needs when it has served nobody yet."""
        self.needs = needs

    def replace(self, other: "Worker | None") -> None:
        """Be to take another worker's place; None: be one that stays."""
        self.replaces = other

    def export(self, keep: Keep) -> Data:
        """Return what the next program needs to go on with it."""
        return {
            "pid": self.pid,
            "number": self.number,
            "generation": self.generation.number,
            "state": self.state.value,
            "started": self.started,
            "ready": self.ready,
            "needs": self.needs,
            "replaces": None if self.replaces is None else self.replaces.pid,
            "surplus": self.is_surplus,
            "leave_by": self.leave_by,
            "kill_at": self.kill_at,
            "fault": self.fault,
            "leaving": self.leaving,
            "channel": self.channel.export(keep),
        }

    @classmethod
    def imported(cls, data: Data, generation: Generation, now: float) -> Self:
        """Go on with one of the program before; whom it replaces is to be said with `replace`."""
        channel = Channel.imported(data["channel"])
        worker = cls(data["pid"], data["number"], generation, channel, started=data["started"], heard=now)
        worker.state = WorkerState(data["state"])
        worker.ready, worker.needs = data["ready"], data["needs"]
        worker.is_surplus = data["surplus"]
        worker.leave_by, worker.kill_at = data["leave_by"], data["kill_at"]
        worker.fault = None if data["fault"] is None else tuple(data["fault"])
        worker.leaving = data["leaving"]
        return worker

    @property
    def is_on_the_way(self) -> bool:
        """Whether it has yet to become ready."""
        return self.state in (WorkerState.LOADING, WorkerState.PREPARED, WorkerState.STARTING)

    @property
    def is_to_answer(self) -> bool:
        """Whether it is to answer when it is asked: it serves, or what it has accepted to the end."""
        return self.state in (WorkerState.READY, WorkerState.DRAINING, WorkerState.STOPPING)

    @property
    def is_leaving(self) -> bool:
        """Whether it is on its way out, whatever else it says."""
        return self.state in (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.STUCK)

    @property
    def status(self) -> int:
        """The exit status of a daemon that ends because this worker has ended."""
        if self.fault is not None:
            return self.fault[1]
        return ExitStatus.SOFTWARE if self.leaving is None else self.leaving

    def why_not_ready(self, code: int) -> list[str]:
        """Return the lines that say why this worker, which ended with an exit code, is not ready."""
        if self.fault is not None:
            return self.fault[0]
        if self.leaving is not None:
            return [f"tamed: the application ended before it was ready, with status {self.leaving}"]
        return [f"tamed: {self.how_it_ended(code)} before it was ready"]

    def how_it_ended(self, code: int) -> str:
        """Say how this worker ended, and why if it said so."""
        if self.fault is not None:
            return f"worker {self.pid} failed: {self.fault[0][-1].removeprefix('tamed: ')}"
        if code < 0:
            return f"worker {self.pid} was ended by {_name_of(-code)}"
        return f"worker {self.pid} ended with status {code}"


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time ones have no name of their own
