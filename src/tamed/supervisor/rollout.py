"""Rollouts: a generation of workers is brought up, and takes the place of the one that serves, if one does.

The first start is a reload from nothing. Both take the same way, one stage after the other:

1. READING: the files are read by a process of its own, because that takes code that the supervisor does not
   load. The command has read them for the first start, which begins with the next stage.
2. LOADING: a template loads the application, with ``--preload``.
3. PREPARING: the workers start, a few at a time, and bind what they listen on. None goes on before all have.
4. DROPPING: they drop their privileges. When all have, so does the supervisor, which does that once: until
   then it takes privilege to bind for one of them, and to end one.
5. STARTING: their services start.
6. HANDING_OVER: all are ready. The workers of the generation before, its predecessor, leave, and the new ones
   serve.

If anything goes wrong before the last stage, nothing has changed for the predecessor: the new workers are
taken down, and it goes on. If there is none, the daemon has failed to start, and ends.

This file owns how far a rollout is and which generation serves, and nothing else writes either. When one
begins is decided by ``operations``, and what a worker does once its generation serves is for ``scaling`` and
``recovery``.
"""

import enum
from collections.abc import Callable, Iterable, Sequence

from tamed.errors import ExitStatus, TamedError, reason, status_of
from tamed.ipc.handoff import Data
from tamed.ipc.message import InvalidMessage, read_fault, read_text, read_texts
from tamed.supervisor.generation import Generation, Worker, WorkerState
from tamed.supervisor.handover import Handovers
from tamed.supervisor.helpers import HelperProcess, HelperProcesses
from tamed.supervisor.loop import Reactor, Timer
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import Platform
from tamed.supervisor.recovery import Recovery
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.workers import WorkerPool

__all__ = ["Rollout", "Stage"]

_PLANNER = "tamed.control.planner"
_ROLLBACK_GRACE = 5.0  # seconds for workers to undo a start that is given up


class Stage(enum.Enum):
    """How far a rollout is; the value says what is waited for."""

    IDLE = "nothing"
    READING = "the files are read"
    LOADING = "the application is loaded"
    PREPARING = "workers prepare"
    DROPPING = "workers drop their privileges"
    STARTING = "services start"
    HANDING_OVER = "the workers before let nobody in any more"


_REACHED = {
    Stage.PREPARING: {WorkerState.PREPARED, WorkerState.STARTING, WorkerState.READY},
    Stage.DROPPING: {WorkerState.STARTING, WorkerState.READY},
    Stage.STARTING: {WorkerState.READY},
}
"""The states in which a worker has done what its stage is for."""


class Rollout:
    """Brings generations up, one at a time.

    ``serving`` is the generation that serves; until the first does, it is the first. ``coming`` is the one on
    the way, None if there is none. ``done`` is called when a rollout has come to its end, with the outcome
    for its callers; ``fault`` is in that of one that has failed.
    """

    def __init__(
        self,
        first: Plan,
        pool: WorkerPool,
        handovers: Handovers,
        helpers: HelperProcesses,
        recovery: Recovery,
        *,
        sockets: SocketTable,
        reactor: Reactor,
        platform: Platform,
        done: Callable[[Data], object],
    ) -> None:
        self.stage = Stage.IDLE
        self.serving = Generation(1, first, first.workers)
        self.coming: Generation | None = None
        self._predecessor: Generation | None = None
        self._last_number = 0  # also of one that was given up
        self._is_privileged = True
        self._pool = pool
        self._handovers = handovers
        self._helpers = helpers
        self._sockets = sockets
        self._reactor = reactor
        self._platform = platform
        self._recovery = recovery
        self._done = done
        self._deadline: Timer | None = None
        self._planner: HelperProcess | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a generation is on its way, or about to take its predecessor's place."""
        return self.stage is not Stage.IDLE

    # The stages.

    def start(self) -> None:
        """Bring up the first generation."""
        self._set_deadline()
        self._bring_up(self.serving)

    def reload(self) -> None:
        """Bring up another generation, by the files as they are now. None may be on its way."""
        self._predecessor = self.serving
        plan = self.serving.plan
        self.stage = Stage.READING
        self._platform.log("INFO", "reloading")
        self._platform.notify_reloading()
        self._set_deadline()
        try:
            order = {"plan": plan.to_text()}
            self._planner = self._helpers.send(_PLANNER, order, self._read, timeout=plan.start_timeout)
        except OSError as error:
            self._fail([f"tamed: the files cannot be read: {reason(error)}"], ExitStatus.OS_ERROR)

    def _read(self, planner: HelperProcess) -> None:
        """Take the plan that has come of the files."""
        if planner is not self._planner:  # it was given up
            return
        if planner.timed_out:
            self._overran()
            return
        self._planner = None
        who = "tamed: the process that reads the files"
        try:
            match planner.answer or {}:
                case {"plan": _} as answer:
                    plan, notes = Plan.from_text(read_text(answer, "plan")), read_texts(answer, "notes")
                    for note in notes:
                        self._platform.log("WARNING", note)
                    self._bring_up(self._successor(plan))
                case {"fault": _} as answer:
                    self._fail(*read_fault(answer))
                case _:
                    self._fail([f"{who} ended with {planner.code}"], ExitStatus.SOFTWARE)
        except InvalidMessage as error:
            self._fail([f"{who} cannot be understood: {error}"], ExitStatus.SOFTWARE)

    def _successor(self, plan: Plan) -> Generation:
        """Return the next generation. A number that was scaled to stays, unless the files change it."""
        serving = self.serving
        count = serving.count if plan.workers == serving.plan.workers else plan.workers
        return Generation(self._last_number + 1, plan, count)

    def _bring_up(self, generation: Generation) -> None:
        self.stage = Stage.LOADING
        self.coming = generation
        self._last_number = generation.number
        if not generation.plan.preload:
            self._prepare()
            return
        try:
            self._pool.templates.load(generation, self._prepare, self._fail)
        except OSError as error:
            why = f"tamed: the application cannot be preloaded: {reason(error)}"
            self._fail([why], ExitStatus.OS_ERROR)

    def _prepare(self) -> None:
        if self.stage is Stage.LOADING:  # else it was given up
            self.stage = Stage.PREPARING
            self.advance()

    def advance(self) -> None:
        """Go on as far as the workers of the generation on the way have come."""
        if (generation := self.coming) is None:
            return
        try:
            self._pool.fill(generation)
        except OSError as error:
            self._fail([f"tamed: a worker cannot be started: {reason(error)}"], ExitStatus.OS_ERROR)
        if self._have_all_done(Stage.PREPARING):
            self.stage = Stage.DROPPING
            for worker in self._pool.of(generation):
                self._pool.let_start(worker)
        if self._have_all_done(Stage.DROPPING):
            self.stage = Stage.STARTING
            self._drop_privileges()
        if self._have_all_done(Stage.STARTING):
            self._take_over(generation)

    def _have_all_done(self, stage: Stage) -> bool:
        """Tell whether this is the stage, and it has all its workers, and each has done its part of it."""
        if self.stage is not stage or self.coming is None:
            return False
        workers = self._pool.of(self.coming)
        return len(workers) >= self.coming.count and all(each.state in _REACHED[stage] for each in workers)

    def _drop_privileges(self) -> None:
        if not self._is_privileged:
            return
        self._is_privileged = False
        self._pool.templates.drop_privileges()
        try:
            self._platform.drop_privileges()
        except TamedError as error:
            self._fail([f"tamed: {error}"], status_of(error))

    def _take_over(self, generation: Generation) -> None:
        """Let a generation serve that is ready; its predecessor serves those whom it has let in."""
        if (predecessor := self._predecessor) is not None:
            try:
                self._platform.change_log(generation.plan.log)
            except TamedError as error:
                self._fail([f"tamed: {error}"], status_of(error))
                return
        self.stage = Stage.HANDING_OVER
        self.coming, self.serving = None, generation
        self._cancel_deadline()
        workers = self._pool.of(generation)
        if predecessor is None:
            self._handovers.begin([], workers, self._report_started)
            return
        self._pool.templates.end(predecessor)
        self._platform.enter(generation.plan.directory)
        self._recovery.begin_anew()
        leaving = [worker for worker in self._pool.of(predecessor) if not worker.is_surplus]
        self._handovers.begin(leaving, workers, self._report_reloaded)
        self.release(predecessor)

    # The end of one, and to whom it is reported.

    def give_up(self, why: str) -> None:
        """End the rollout that is under way, if there is one: the daemon stops.

        A start that was stopped has not failed, so no failure is reported.
        """
        if self._predecessor is not None:
            self._fail([f"tamed: {why}"], ExitStatus.UNAVAILABLE)
        else:
            self._end()

    def worker_ended(self, worker: Worker, code: int) -> None:
        """Fail, because a worker of the generation on the way has ended."""
        self._fail(worker.why_not_ready(code), worker.status)

    def _overran(self) -> None:
        plan = self.serving.plan
        workers = [] if self.coming is None else self._pool.of(self.coming)
        late = [f"worker {each.pid} is {each.state.value}" for each in workers if each.is_on_the_way]
        what = plan.name if self._predecessor is None else "it"
        why = f"{what} was not ready after {plan.start_timeout:g} s: {', '.join(late) or self.stage.value}"
        self._fail([f"tamed: {why}"], ExitStatus.SOFTWARE)

    def _fail(self, lines: Sequence[str], status: int) -> None:
        """Give the generation on the way up, and say why; the first reason counts."""
        if not self.is_busy:
            return
        coming, predecessor = self.coming, self._predecessor
        self._end()
        if predecessor is not None:
            status = status or ExitStatus.SOFTWARE
            text = "\n".join(lines).removeprefix("tamed: ")
            self._platform.log("ERROR", f"reload failed, generation {self.serving.number} goes on: {text}")
            if coming is not None:
                self._pool.templates.end(coming)
                self._handovers.drain(self._pool.of(coming), _ROLLBACK_GRACE)
            self._platform.notify_reloaded(f"reload failed: {lines[-1]}")
        else:
            self._platform.report_failed(lines, status)
        self._done({"fault": {"lines": list(lines), "status": status}})

    def _report_started(self) -> None:
        self._end()
        self._platform.report_ready(self._sockets.addresses(self.serving.number))
        self._done({})

    def _report_reloaded(self) -> None:
        if not self.is_busy:  # it was given up meanwhile
            return
        self._end()
        generation = self.serving
        workers = f"{generation.count} worker{'s' * (generation.count > 1)}"
        line = f"{generation.plan.name} was reloaded: generation {generation.number}, {workers}"
        self._platform.log("INFO", line)
        self._platform.notify_reloaded(line)
        self._done({"reloaded": line})

    def _end(self) -> None:
        self.stage = Stage.IDLE
        self.coming = self._predecessor = None
        self._cancel_deadline()
        planner, self._planner = self._planner, None
        if planner is not None:
            self._helpers.kill(planner)

    def release(self, generation: Generation) -> None:
        """Close what only this generation listened on, if it is over and nobody of it is left."""
        if generation not in (self.serving, self.coming) and not self._pool.of(generation):
            self._sockets.release(generation.number)

    def _set_deadline(self) -> None:
        self._deadline = self._reactor.later(self.serving.plan.start_timeout, self._overran)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    # One program takes the place of another.

    def export(self) -> Data:
        """Return the generations as data, for the next program."""
        others: Iterable[Generation] = (worker.generation for worker in self._pool.workers.values())
        return {
            "serving": self.serving.number,
            "last_number": self._last_number,
            "generations": [
                {
                    "number": each.number,
                    "plan": each.plan._replace(report=-1).to_text(),
                    "count": each.count,
                }
                for each in {self.serving, *others}
            ],
        }

    def resume(self, left: Data) -> dict[int, Generation]:
        """Go on where the program before has stopped; return the generations by their number."""
        generations = {
            data["number"]: Generation(data["number"], Plan.from_text(data["plan"]), data["count"])
            for data in left["generations"]
        }
        self.serving = generations[left["serving"]]
        self._last_number = left["last_number"]
        self._is_privileged = False
        return generations
