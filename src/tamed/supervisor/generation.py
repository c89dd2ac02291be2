"""A generation: the workers that run one reading of the files and the code, and their services' checks."""

import enum
import signal
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol, Self

from tamed._os.text import signal_name
from tamed.errors import ExitStatus
from tamed.ipc.handoff import Data, Keep
from tamed.ipc.message import InvalidMessage, Message, read_objects, read_text, read_truth
from tamed.supervisor.loop import Peer
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import Platform, Remains

__all__ = [
    "Check",
    "CheckSummary",
    "Generation",
    "ServiceChecks",
    "Serving",
    "Worker",
    "WorkerState",
    "how_it_ended",
    "read_checks",
]

_KEPT = (
    *("pid", "number", "started", "ready", "needs", "is_surplus", "drained_from", "leave_by", "kill_at"),
    *("fault", "errno", "leaving", "checks"),
)
"""The attributes of a worker that are handed over in an upgrade as they are."""

_MOST: Final = 100  # services with a check
_LONGEST: Final = 300  # characters of a name, and of a reason


class Generation:
    """The data that its workers share. A worker refers to its generation, not the other way round.

    ``count`` is the wanted number of workers: that of the plan, until the daemon is scaled.
    """

    def __init__(self, number: int, plan: Plan, count: int) -> None:
        self.number = number
        self.plan = plan
        self.count = count

    @property
    def max_worker_memory(self) -> int | None:
        """The most bytes that one of its workers may use, None if there is no limit."""
        of_all = self.plan.max_workers_memory
        return self.plan.max_worker_memory if of_all is None else of_all // self.count


class Serving(Protocol):
    """The part of a supervisor that determines the wanted workers."""

    @property
    def generation(self) -> Generation:
        """The serving generation; during the first start, the one that is starting."""

    @property
    def is_running(self) -> bool:
        """Whether lost workers are replaced: not during the first start or a stop."""

    @property
    def ready(self) -> int:
        """The number of workers of this generation that are ready and were not asked to leave."""


class WorkerState(enum.Enum):
    """The state of a worker.

    LOADING: it imports the application and binds its endpoints. PREPARED: it waits until all workers of its
    generation are prepared. STARTING: its services start. READY: it serves. DRAINING: it accepts no new
    connections, and serves the connections that it has accepted. STOPPING: it was asked to stop. STUCK: it
    has not answered for too long, and is ended by force.
    """

    LOADING = "loading"
    PREPARED = "prepared"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STUCK = "stuck"


class Check(NamedTuple):
    """The check of a service in one worker; ``why`` is empty if it passes, None if it is unknown."""

    name: str
    gates: bool
    why: str | None


class Worker:
    """A worker process, from the request for it until it has been reaped.

    ``pid`` is 0 until its template has forked it. ``number`` counts from 1 in its ``generation``; its
    replacement has the same number. ``replaces`` is the worker that is drained when this one is ready.
    ``started``, ``ready`` (None before) and ``heard`` (its last message) are times of the supervisor's clock,
    in seconds. ``needs`` is the number of bytes allocated when it became ready, None if unknown.
    ``is_surplus`` means that its end is wanted and that no worker replaces it. ``leave_by`` is its deadline
    to end, and ``kill_at`` the time when it is killed; None for none. ``fault`` is the failure that it
    reported: the lines to print, and the status. ``leaving`` is the exit status that its application chose.
    ``drained_from`` is the time when draining began, None before. ``timings`` are the durations of its start
    (see `read_timings`), and ``checks`` the last results of its service checks. ``subscribed`` is ``all`` for
    the events of all workers, ``one`` for those sent to a single worker, or empty. ``remains`` is known after
    its end.
    """

    def __init__(
        self, number: int, generation: Generation, now: float, replaces: "Worker | None" = None
    ) -> None:
        self.pid = 0
        self.number = number
        self.generation = generation
        self.peer: Peer  # from the fork on
        self.started = self.heard = now
        self.ready: float | None = None
        self.needs: int | None = None
        self.state = WorkerState.LOADING
        self.fault: tuple[list[str], int] | None = None
        self.errno = 0
        self.leaving: int | None = None
        self.replaces = replaces
        self.is_surplus = False
        self.is_reaped = False
        self.timings: dict[str, Any] = {}
        self.checks: list[Check] = []
        self.subscribed: set[str] = set()
        self.drained_from: float | None = None
        self.remains = Remains()
        self.leave_by: float | None = None
        self.kill_at: float | None = None

    @property
    def who(self) -> str:
        """The worker's name in messages."""
        return f"worker {self.pid}" if self.pid else "a worker"

    def begin(self, pid: int, now: float) -> None:
        """Record the fork."""
        self.pid = pid
        self.started = self.heard = now

    def enter_state(self, state: WorkerState, now: float) -> None:
        """Enter a state that precedes readiness, or READY, at this time."""
        self.state = state
        if state is WorkerState.READY:
            self.ready = now

    def drain(self, now: float) -> None:
        """Record that draining begins at this time: the end is wanted, and no worker replaces it."""
        self.is_surplus = True
        self.state = WorkerState.DRAINING
        self.drained_from = self.drained_from or now

    def stop(self, now: float) -> None:
        """Record that a stop was requested at this time."""
        self.state = WorkerState.STOPPING
        self.drained_from = self.drained_from or now

    def abort(self, kill_at: float) -> None:
        """Record that it is being aborted, and is killed at this time at the latest."""
        self.state = WorkerState.STUCK
        self.kill_at = kill_at

    def export(self, keep: Keep) -> Data:
        """Return this as data, for the next program."""
        return {
            **{name: getattr(self, name) for name in _KEPT},
            "generation": self.generation.number,
            "state": self.state.value,
            "replaces": None if self.replaces is None else self.replaces.pid,
            "subscribed": sorted(self.subscribed),
            "channel": self.peer.channel.export(keep),
        }

    @classmethod
    def imported(cls, data: Data, generation: Generation, now: float) -> Self:
        """Return a worker of the previous program; its ``replaces`` and its ``peer`` are not set yet."""
        worker = cls(data["number"], generation, now)
        for name in _KEPT:
            setattr(worker, name, data[name])
        worker.state = WorkerState(data["state"])
        worker.checks = [Check(*each) for each in data["checks"]]
        worker.subscribed = set(data["subscribed"])
        return worker

    @property
    def is_coming(self) -> bool:
        """Whether it is not ready yet."""
        return self.state in (WorkerState.LOADING, WorkerState.PREPARED, WorkerState.STARTING)

    @property
    def must_answer(self) -> bool:
        """Whether it must answer requests, because it serves connections."""
        return self.state in (WorkerState.READY, WorkerState.DRAINING, WorkerState.STOPPING)

    @property
    def is_leaving(self) -> bool:
        """Whether its end was requested, whatever state it reports."""
        return self.state in (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.STUCK)

    @property
    def has_chosen_to_end(self) -> bool:
        """Whether its application chose to end while it served: then all workers end.

        One that ends before it is ready has failed to start, whatever status it chose.
        """
        return self.leaving is not None and self.ready is not None

    @property
    def status(self) -> int:
        """The exit status of a daemon that ends because this worker has ended."""
        if self.fault is not None:
            return self.fault[1]
        return ExitStatus.SOFTWARE if self.leaving is None else self.leaving

    def facts(self) -> dict[str, Any]:
        """Return what identifies it in an event."""
        return {"worker": self.number, "pid": self.pid or None, "generation": self.generation.number}

    def end_event(self, code: int, now: float) -> tuple[str, str, dict[str, Any]]:
        """Return the event of its end, with an exit code: the kind, the text and the facts."""
        if self.drained_from is not None and code in (0, -signal.SIGTERM):
            took = now - self.drained_from
            text = f"worker {self.pid} has drained in {took:.1f} s"
            return "drain", text, {**self.facts(), "took": round(took, 3)}
        if self.has_chosen_to_end:
            text = f"the application ended, with status {self.leaving}"
            return "exit", text, {**self.facts(), "status": self.leaving}
        return "death", self.how_it_ended(code), self._facts_of_death(code, now)

    def _facts_of_death(self, code: int, now: float) -> dict[str, Any]:
        """Return what is known of its end, with an exit code, for an event."""
        remains = self.remains
        return {
            **self.facts(),
            "signal": signal_name(-code) if code < 0 else None,
            "status": code if code >= 0 else None,
            "state": self.state.value,
            "lived": round(now - self.started, 3),
            "memory": remains.memory,
            "oom": True if code == -signal.SIGKILL and remains.is_oom else None,
            "reason": None if self.fault is None else "\n".join(self.fault[0]),
            "lines": remains.lines or None,
        }

    def why_not_ready(self, code: int) -> list[str]:
        """Return the lines that explain why this worker, which ended with an exit code, is not ready."""
        if self.fault is not None:
            return self.fault[0]
        if self.leaving is not None:
            return [f"tamed: {self._never_ready}"]
        return [f"tamed: {self.how_it_ended(code)} before it was ready"]

    def how_it_ended(self, code: int) -> str:
        """Return how this worker ended, and why if it has reported the reason."""
        if self.fault is not None:
            return f"{self.who} failed: {self.fault[0][-1].removeprefix('tamed: ')}"
        if self.leaving is not None and self.ready is None:
            return f"{self.who} failed: {self._never_ready}"
        return f"{self.who} {how_it_ended(code)}"

    def reason_of_end(self, code: int, *, is_stopping: bool) -> str:
        """Return the reason for its end, as a label; ``is_stopping`` is whether the daemon ends.

        ``stuck``: it did not answer; ``wanted``: it ended on request; ``fault``: it reported a failure;
        ``application``: the application ended by its own choice; the name of a signal: it was killed by it;
        ``status``: none of these.
        """
        if is_stopping and code in (0, -signal.SIGTERM):
            return "wanted"
        if self.state is WorkerState.STUCK:
            return "stuck"
        if self.is_leaving and code in (0, -signal.SIGTERM):
            return "wanted"
        if self.fault is not None:
            return "fault"
        if self.leaving is not None:
            return "application"
        return "status" if code >= 0 else signal_name(-code)

    @property
    def _never_ready(self) -> str:
        return f"the application ended before it was ready, with status {self.leaving}"


def how_it_ended(code: int) -> str:
    """Return in words how a process has ended, from its exit code, which is negative for a signal."""
    return f"ended with status {code}" if code >= 0 else f"was ended by {signal_name(-code)}"


class CheckSummary(NamedTuple):
    """A check over all workers: it fails in ``failing`` of ``asked`` workers; ``why`` is the first reason."""

    name: str
    gates: bool
    asked: int
    failing: int
    why: str


class ServiceChecks:
    """Combines the checks of all workers, and records an event when one begins to fail or passes again.

    A check fails if it fails in one worker: the clients of that worker suffer. A worker without a result does
    not count, so that replacing a worker does not make the daemon unready.

    ``results`` returns the checks of each worker that serves.
    """

    def __init__(self, results: Callable[[], Iterable[Iterable[Check]]], platform: Platform) -> None:
        self._results = results
        self._platform = platform
        self._failing: dict[str, str] = {}

    def summaries(self) -> list[CheckSummary]:
        """Return all checks, in the order of the services."""
        found: dict[str, CheckSummary] = {}
        for checks in self._results():
            for name, gates, why in checks:
                before = found.get(name, CheckSummary(name, gates, 0, 0, ""))
                found[name] = CheckSummary(
                    name,
                    gates,
                    before.asked + (why is not None),
                    before.failing + bool(why),
                    before.why or why or "",
                )
        return list(found.values())

    @property
    def failing(self) -> list[CheckSummary]:
        """The checks that fail."""
        return [each for each in self.summaries() if each.failing]

    def look(self) -> None:
        """Record changes as events. Must be called after each report and each end of a worker."""
        for each in self.summaries():
            if each.failing and each.name not in self._failing:
                text = f"the check of {each.name} fails: {each.why}"
                self._platform.record("check", text, service=each.name, outcome="failed")
                self._failing[each.name] = each.why
            elif each.asked and not each.failing and self._failing.pop(each.name, None) is not None:
                text = f"the check of {each.name} passes again"
                self._platform.record("check", text, service=each.name, outcome="passed")

    def export(self) -> dict[str, str]:
        """Return the checks that fail, for the next program."""
        return self._failing

    def resume(self, left: dict[str, str]) -> None:
        """Resume from what the previous program has exported."""
        self._failing = dict(left)


def read_checks(message: Message) -> list[Check]:
    """Return the checks that a worker reports. Raises InvalidMessage."""
    return [_read_check(each) for each in read_objects(message, "checks")[:_MOST]]


def _read_check(data: dict[str, Any]) -> Check:
    why = data.get("why")
    if not isinstance(why, str | None):
        raise InvalidMessage("why: expected a text or null")
    name = read_text(data, "name")[:_LONGEST]
    return Check(name, read_truth(data, "gates"), None if why is None else why[:_LONGEST])
