"""Reloading: a new generation of workers takes the place of the one that serves, or nothing changes.

The files are read anew by a process of their own, because reading them takes code that the supervisor does
not load. Then the new workers start, on the same sockets, while the old ones serve. If every new one becomes
ready, they take over. If anything goes wrong before, they are taken down, and the old ones have noticed
nothing.

When a reload begins, and who is told what has come of it, is for others: see ``_operations``.
"""

from collections.abc import Callable, Iterable
from typing import Any

from tamed.errors import ExitStatus, TamedError, reason, status_of
from tamed.ipc.message import InvalidMessage, read_fault, read_text, read_texts
from tamed.supervisor.generation import Generation, Worker, WorkerState
from tamed.supervisor.helpers import HelperProcess, HelperProcesses
from tamed.supervisor.loop import Reactor, Timer
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import Platform
from tamed.supervisor.scaling import Scaler
from tamed.supervisor.watchdog import Watchdog
from tamed.supervisor.workers import WorkerPool

__all__ = ["Rollout"]

_PLANNER = "tamed.control.planner"
_ROLLBACK_GRACE = 5.0  # seconds for workers to undo a start that is given up


class Rollout:
    """Brings up new generations.

    ``generation`` is the one that is on the way, None while there is none. ``last_number`` is that of the
    last one there was, also if it was given up. ``serving`` is asked for the generation that serves,
    ``take_over`` is called with one that is ready to do so, and with what is to be called when it does, and
    ``done`` with what has come of the reload.
    """

    def __init__(
        self,
        pool: WorkerPool,
        scaler: Scaler,
        watchdog: Watchdog,
        helpers: HelperProcesses,
        *,
        reactor: Reactor,
        platform: Platform,
        serving: Callable[[], Generation],
        take_over: Callable[[Generation, Callable[[], None]], None],
        done: Callable[[dict[str, Any]], object],
    ) -> None:
        self.generation: Generation | None = None
        self.last_number = 1
        self.is_busy = False
        self._pool = pool
        self._scaler = scaler
        self._watchdog = watchdog
        self._helpers = helpers
        self._reactor = reactor
        self._platform = platform
        self._serving = serving
        self._take_over = take_over
        self._done = done
        self._deadline: Timer | None = None
        self._planning: HelperProcess | None = None

    def begin(self) -> None:
        """Reload; none may be under way."""
        plan = self._serving().plan
        self.is_busy = True
        self._platform.log("INFO", "reloading")
        self._platform.notify_reloading()
        self._deadline = self._reactor.later(plan.start_timeout, self._overran)
        try:
            order = {"plan": plan.to_text()}
            self._planning = self._helpers.send(_PLANNER, order, self._planned, timeout=plan.start_timeout)
        except OSError as error:
            self._fail([f"tamed: the files cannot be read: {reason(error)}"], ExitStatus.OS_ERROR)

    def changed(self, worker: Worker) -> None:
        """Hear that a worker of the generation on the way has come to another state."""
        generation = worker.generation
        self._fill(generation)
        match worker.state:
            case WorkerState.PREPARED if self._scaler.have_come(generation, WorkerState.PREPARED):
                for each in self._pool.of(generation):
                    self._pool.let_start(each)
            case WorkerState.READY if self._scaler.have_come(generation, WorkerState.READY):
                self._complete(generation)

    def ended(self, worker: Worker, code: int) -> None:
        """Hear that a worker of the generation on the way has ended."""
        self._fail(worker.why_not_ready(code), worker.status or ExitStatus.SOFTWARE)

    def give_up(self, why: str) -> None:
        """End the reload that is under way, if there is one."""
        if self.is_busy:
            self._fail([f"tamed: {why}"], ExitStatus.UNAVAILABLE)

    def _planned(self, helper: HelperProcess) -> None:
        if helper is not self._planning:  # it was given up
            return
        if helper.timed_out:
            self._overran()
            return
        self._planning = None
        planner = "tamed: the process that reads the files"
        try:
            match helper.answer or {}:
                case {"plan": _} as answer:
                    plan, notes = Plan.from_text(read_text(answer, "plan")), read_texts(answer, "notes")
                    for note in notes:
                        self._platform.log("WARNING", note)
                    self._bring_up(plan)
                case {"fault": _} as answer:
                    self._fail(*read_fault(answer))
                case _:
                    self._fail([f"{planner} ended with {helper.code}"], ExitStatus.SOFTWARE)
        except InvalidMessage as error:
            self._fail([f"{planner} cannot be understood: {error}"], ExitStatus.SOFTWARE)

    def _bring_up(self, plan: Plan) -> None:
        serving = self._serving()
        self.last_number += 1
        # Who has scaled the workers keeps their number, unless the one in the files is a new one.
        count = serving.count if plan.workers == serving.plan.workers else plan.workers
        generation = self.generation = Generation(self.last_number, plan, count)
        try:
            self._pool.bring_up(generation, lambda: self._fill(generation), self._fail)
        except OSError as error:
            told = f"tamed: the application cannot be preloaded: {reason(error)}"
            self._fail([told], ExitStatus.OS_ERROR)

    def _fill(self, generation: Generation) -> None:
        try:
            self._scaler.fill(generation)
        except OSError as error:
            self._fail([f"tamed: a worker cannot be started: {reason(error)}"], ExitStatus.OS_ERROR)

    def _complete(self, generation: Generation) -> None:
        try:
            self._platform.change_log(generation.plan.log)
        except TamedError as error:
            self._fail([f"tamed: {error}"], status_of(error))
            return
        generation.is_up = True
        self.generation = None
        self._cancel_deadline()
        self._take_over(generation, lambda: self._succeed(generation))

    def _succeed(self, generation: Generation) -> None:
        workers = f"{generation.count} worker{'s' * (generation.count > 1)}"
        line = f"{generation.plan.name} was reloaded: generation {generation.number}, {workers}"
        self._platform.log("INFO", line)
        self._end({"reloaded": line}, line)

    def _overran(self) -> None:
        plan = self._serving().plan
        pool = [] if self.generation is None else self._pool.of(self.generation)
        late = [f"worker {each.pid} is {each.state.value}" for each in pool if each.is_on_the_way]
        at = "the application is loaded" if self._planning is None else "the files are read"
        told = f"it was not ready after {plan.start_timeout:g} s: {', '.join(late) or at}"
        self._fail([f"tamed: {told}"], ExitStatus.SOFTWARE)

    def _fail(self, lines: Iterable[str], status: int) -> None:
        """Take down what has come up, and say why."""
        lines = list(lines)
        generation, self.generation = self.generation, None
        serving = self._serving()
        text = "\n".join(lines).removeprefix("tamed: ")
        self._platform.log("ERROR", f"reload failed, generation {serving.number} goes on: {text}")
        planning, self._planning = self._planning, None
        if planning is not None:
            self._helpers.kill(planning)
        if generation is not None:
            generation.is_over = True
            self._pool.templates.end(generation)
            for worker in self._pool.of(generation):
                self._pool.drain(worker)
            self._watchdog.kill_after(self._pool.of(generation), _ROLLBACK_GRACE)
        self._cancel_deadline()
        self._end({"fault": {"lines": lines, "status": status}}, f"reload failed: {lines[-1]}")

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _end(self, outcome: dict[str, Any], line: str) -> None:
        self.is_busy = False
        self._platform.notify_reloaded(line)
        self._done(outcome)
