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
    """The common part of its workers. A worker refers to its generation, not the other way round.

    ``count`` is the wanted number of workers: that of the plan, until the daemon is scaled.
    """

    __slots__ = ("count", "number", "plan")

    def __init__(self, number: int, plan: Plan, count: int) -> None:
        self.number = number
        self.plan = plan
        self.count = count

    def resize(self, count: int) -> None:
        """Set another number of workers."""
        self.count = count


class WorkerState(enum.Enum):
    """The state of a worker.

    LOADING: it imports the application and binds its endpoints. PREPARED: it waits until all workers of its
    generation are prepared. STARTING: its services start. READY: it serves. DRAINING: it accepts no more, and
    serves the connections that it has accepted. STOPPING: it was asked to stop. STUCK: it has not answered
    for too long, and is ended by force.
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

    ``number`` counts from 1 in its ``generation``; its replacement has the same number. ``replaces`` is the
    worker that leaves when this one is ready. ``started``, ``ready`` (None before it is ready) and ``heard``
    (the last message from it) are times of the supervisor's clock. ``needs`` is the number of bytes that it
    had allocated when it became ready, None where that is unknown. ``is_surplus`` means that its end is
    wanted and that no worker replaces it. ``leave_by`` is its deadline to end, and ``kill_at`` the time when
    it is killed; None if there is none. ``fault`` is its report of its failure: the lines to print, and the
    status. ``leaving`` is the exit status that its application chose.
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

    def enter_state(self, state: WorkerState, now: float) -> None:
        """Enter another state on the way to readiness, at this time."""
        self.state = state
        if state is WorkerState.READY:
            self.ready = now

    def drain(self) -> None:
        """Record that it drains: its end is wanted, and no worker replaces it."""
        self.is_surplus = True
        self.state = WorkerState.DRAINING

    def stop(self) -> None:
        """Record that it was asked to stop."""
        self.state = WorkerState.STOPPING

    def abort(self, kill_at: float) -> None:
        """Record that it is ended by force, at that time at the latest."""
        self.state = WorkerState.STUCK
        self.kill_at = kill_at

    def set_leave_by(self, by: float) -> None:
        """Set the deadline for its end."""
        self.leave_by = by

    def measure(self, needs: int | None) -> None:
        """Record the memory that it uses before it has served a connection."""
        self.needs = needs

    def replace(self, other: "Worker | None") -> None:
        """Set the worker that this one replaces; None: it replaces no worker and stays."""
        self.replaces = other

    def export(self, keep: Keep) -> Data:
        """Return this as data, for the next program."""
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
        """Return a worker of the previous program; set the worker that it replaces with `replace`."""
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
    def is_coming(self) -> bool:
        """Whether it is not ready yet."""
        return self.state in (WorkerState.LOADING, WorkerState.PREPARED, WorkerState.STARTING)

    @property
    def must_answer(self) -> bool:
        """Whether it must answer requests: it serves new connections, or those that it has accepted."""
        return self.state in (WorkerState.READY, WorkerState.DRAINING, WorkerState.STOPPING)

    @property
    def is_leaving(self) -> bool:
        """Whether it is about to end, whatever state it reports."""
        return self.state in (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.STUCK)

    @property
    def status(self) -> int:
        """The exit status of a daemon that ends because this worker has ended."""
        if self.fault is not None:
            return self.fault[1]
        return ExitStatus.SOFTWARE if self.leaving is None else self.leaving

    def why_not_ready(self, code: int) -> list[str]:
        """Return the lines that explain why this worker, which ended with an exit code, is not ready."""
        if self.fault is not None:
            return self.fault[0]
        if self.leaving is not None:
            return [f"tamed: the application ended before it was ready, with status {self.leaving}"]
        return [f"tamed: {self.how_it_ended(code)} before it was ready"]

    def how_it_ended(self, code: int) -> str:
        """Return how this worker ended, and why if it has reported the reason."""
        if self.fault is not None:
            return f"worker {self.pid} failed: {self.fault[0][-1].removeprefix('tamed: ')}"
        if code < 0:
            return f"worker {self.pid} was ended by {_name_of(-code)}"
        return f"worker {self.pid} ended with status {code}"


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no names
