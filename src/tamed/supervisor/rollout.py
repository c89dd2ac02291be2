"""Rollouts: starting a generation of workers, which replaces the serving one, if there is one.

The first start is a reload without a predecessor. Both have the same stages:

1. READING: a helper process reads the files, because that needs code that the supervisor does not load. At
   the first start the command has read them, so it begins with the next stage.
2. LOADING: a template loads what the workers need, with ``--preload`` the application too, if there is no
   such template yet.
3. PREPARING: the template forks the workers, a few at a time. They load the application, if the template has
   not, and bind their endpoints. Each waits for all others.
4. DROPPING: the workers drop their privileges. When all have, the supervisor drops its own, once: until then
   it needs privileges to bind for the workers, and to end them.
5. STARTING: the services start.
6. HANDING_OVER: all workers are ready. The workers of the previous generation, the predecessor, leave, and
   the new ones serve; see `Handovers`.

A failure before the last stage has no effect on the predecessor: the new workers are stopped, and it
continues to serve. Without a predecessor, the start of the daemon has failed, and the daemon ends.

This file owns the stage and the serving generation, and nothing else writes them. ``operations`` decides when
a rollout begins, and ``scaling`` manages the workers of the serving generation.
"""

import enum
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

from tamed._os.text import counted
from tamed.errors import ExitStatus, TamedError, from_os_error, status_of
from tamed.ipc.handoff import Data
from tamed.ipc.message import InvalidMessage, read_fault, read_text, read_texts
from tamed.supervisor.generation import Generation, Worker, WorkerState
from tamed.supervisor.helpers import HelperProcess, HelperProcesses
from tamed.supervisor.loop import NO_TIMER
from tamed.supervisor.operations import History
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import Platform
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.watchdog import Watchdog
from tamed.supervisor.workers import WorkerPool

__all__ = ["ROLLBACK_GRACE", "Handovers", "Rollout", "Stage"]

_PLANNER = "tamed.control.planner"
_PATIENCE = 0.5  # seconds to wait for the reports of busy old workers before the new ones accept
_MOST_CHANGES = 50  # names of changed settings in an event
ROLLBACK_GRACE = 5.0
"""Seconds for the workers to undo a start that failed or was cancelled."""


class Stage(enum.Enum):
    """The stages of a rollout; the value is the event that it waits for, in messages."""

    IDLE = "nothing"
    READING = "the files are read"
    LOADING = "Tamed is loaded"
    PREPARING = "workers prepare"
    DROPPING = "workers drop their privileges"
    STARTING = "services start"
    HANDING_OVER = "the old workers stop accepting"


_REACHED = {
    Stage.PREPARING: {WorkerState.PREPARED, WorkerState.STARTING, WorkerState.READY},
    Stage.DROPPING: {WorkerState.STARTING, WorkerState.READY},
    Stage.STARTING: {WorkerState.READY},
}
"""The states in which a worker has completed each stage."""


class Handovers:
    """Runs handovers, possibly several at a time: old workers stop accepting, and then new ones accept.

    The new ones, which are ready, accept when the old ones have reported that they have stopped. So no worker
    that is about to leave accepts a client that another could serve. Meanwhile clients wait in the kernel's
    queue. Scaling and recycling are handovers of single workers.
    """

    def __init__(self, pool: WorkerPool, watchdog: Watchdog) -> None:
        self._pool = pool
        self._watchdog = watchdog

    def begin(
        self, old: Iterable[Worker], new: Iterable[Worker], done: Callable[[], object] = lambda: None
    ) -> None:
        """Drain the old workers, then open the new ones, which are ready, and call ``done``.

        The old ones must end within the ``stop_timeout`` of their plan.
        """
        leaving, coming = list(old), list(new)
        busy = [worker for worker in leaving if worker.state is WorkerState.READY]
        for worker in leaving:
            self.drain([worker], worker.generation.plan.stop_timeout)

        def finish() -> None:
            for worker in coming:
                self._pool.open(worker)
            done()

        self._pool.when_shut(busy, finish, _PATIENCE)

    def drain(self, workers: Iterable[Worker], seconds: float) -> None:
        """Drain workers that are not replaced; they must end within so many seconds."""
        leaving = list(workers)
        for worker in leaving:
            self._pool.drain(worker)
        self._watchdog.kill_after(leaving, seconds)


class Rollout:
    """Starts generations, one at a time.

    ``serving`` is the generation that serves, or the first one until it serves. ``coming`` is the generation
    that starts, None if there is none. ``replaced`` is called when it has taken the place of the serving one,
    and ``done`` at the end of a rollout, with the outcome for its callers; a failed one has a ``fault``.
    """

    def __init__(
        self,
        first: Plan,
        pool: WorkerPool,
        handovers: Handovers,
        helpers: HelperProcesses,
        *,
        sockets: SocketTable,
        platform: Platform,
        replaced: Callable[[], object],
        done: Callable[[Data], object],
    ) -> None:
        self.stage = Stage.IDLE
        self.serving = Generation(1, first, first.workers)
        self.coming: Generation | None = None
        self._predecessor: Generation | None = None
        self._last_number = 0  # including cancelled generations
        self._is_privileged = True
        self._pool = pool
        self._handovers = handovers
        self._helpers = helpers
        self._sockets = sockets
        self._reactor = platform.reactor
        self._platform = platform
        self._replaced = replaced
        self._done = done
        self._deadline = NO_TIMER
        self._allowed = 0.0  # seconds until that deadline
        self._planner: HelperProcess | None = None
        self._history = History(platform, "start")
        self._notes: list[str] = []  # warnings for those who asked for the reload

    @property
    def is_busy(self) -> bool:
        """Whether a generation starts, or is about to replace its predecessor."""
        return self.stage is not Stage.IDLE

    @property
    def began(self) -> float:
        """The time when the last rollout began, by the reactor's clock."""
        return self._history.began

    # The stages.

    def start(self) -> None:
        """Start the first generation."""
        self._history = History(self._platform, "start")
        self._bring_up(self.serving)

    def reload(self, asked: str = "") -> None:
        """Start another generation from the current files; ``asked`` is the requester. Must not be busy."""
        self._predecessor = self.serving
        plan = self.serving.plan
        self._history = History(self._platform, "reload", asked=asked or None)
        self._enter(Stage.READING)
        self._platform.log("INFO", "reloading")
        self._platform.notifier.reloading("reloading")
        self._set_deadline(plan.helper_timeout)
        try:
            self._planner = self._start_planner(plan)
        except OSError as error:
            self._fail_to_read(error)

    def _fail_to_read(self, error: OSError) -> None:
        refused = from_os_error("the files cannot be read", error)
        self._fail([f"tamed: {refused}"], refused.status)

    def _start_planner(self, plan: Plan) -> HelperProcess:
        """Start the process that reads the files; at the same time a template, if there is none."""
        order, templates, serving = {"plan": plan.to_text()}, self._pool.templates, self.serving
        if templates.can_read(serving):
            return self._helpers.fork(
                templates, serving, _PLANNER, order, self._read, timeout=plan.helper_timeout
            )
        planner = self._helpers.send(_PLANNER, order, self._read, timeout=plan.helper_timeout)
        if not plan.preload:  # otherwise each generation has its own
            templates.keep(serving)
        return planner

    def _read(self, planner: HelperProcess) -> None:
        """Continue with the plan that a helper made from the files."""
        if planner is not self._planner:  # it was cancelled
            return
        if planner.timed_out:
            self._time_out()
            return
        self._planner = None
        if planner.refused is not None:
            self._fail_to_read(planner.refused)
            return
        who = "tamed: the process that reads the files"
        try:
            match planner.answer or {}:
                case {"plan": _} as answer:
                    plan, notes = Plan.from_text(read_text(answer, "plan")), read_texts(answer, "notes")
                    for note in notes:
                        self._platform.log("WARNING", note)
                    self._notes = notes
                    if "changed" in answer:
                        self._history.facts["changed"] = read_texts(answer, "changed")[:_MOST_CHANGES]
                    self._bring_up(self._successor(plan))
                case {"fault": _} as answer:
                    self._fail(*read_fault(answer))
                case _:
                    self._fail([f"{who} ended with {planner.code}"], ExitStatus.SOFTWARE)
        except InvalidMessage as error:
            self._fail([f"{who} sent an invalid message: {error}"], ExitStatus.SOFTWARE)

    def _successor(self, plan: Plan) -> Generation:
        """Return the next generation. A scaled number of workers is kept, unless the files change it."""
        serving = self.serving
        count = serving.count if plan.workers == serving.plan.workers else plan.workers
        return Generation(self._last_number + 1, plan, count)

    def _bring_up(self, generation: Generation) -> None:
        self._enter(Stage.LOADING)
        self._set_deadline(generation.plan.start_timeout)
        self.coming = generation
        self._last_number = generation.number
        self.advance()

    def advance(self) -> None:
        """Enter the next stages as soon as the workers of the coming generation allow it."""
        if (generation := self.coming) is None:
            return
        try:
            self._pool.fill(generation)
        except OSError as error:
            self.worker_refused(error)
        if self._is_complete(Stage.PREPARING):
            self._enter(Stage.DROPPING)
            for worker in self._pool.of(generation):
                self._pool.let_start(worker)
        if self._is_complete(Stage.DROPPING):
            self._enter(Stage.STARTING)
            self._drop_privileges()
        if self._is_complete(Stage.STARTING):
            self._take_over(generation)

    def _is_complete(self, stage: Stage) -> bool:
        """Return whether this is the current stage, all workers exist, and each has completed it."""
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
        """Let a ready generation serve; its predecessor finishes its accepted connections."""
        predecessor = self._predecessor
        try:
            self._platform.change_log(generation.plan.log)
        except TamedError as error:
            self._fail([f"tamed: {error}"], status_of(error))
            return
        self._enter(Stage.HANDING_OVER)
        self.coming, self.serving = None, generation
        self._deadline.cancel()
        self._platform.enter(generation.plan.directory)
        self._replaced()
        old = () if predecessor is None else self._pool.of(predecessor)
        leaving = [worker for worker in old if not worker.is_surplus]
        self._handovers.begin(leaving, self._pool.of(generation), self._report_done)
        if predecessor is not None:
            self.release(predecessor)

    # The end of a rollout, and its reports.

    def cancel(self, why: str) -> None:
        """Cancel the running rollout, if there is one: the daemon stops.

        A start or a reload that was stopped has not failed, so no failure is reported.
        """
        if self._predecessor is not None and self.is_busy:
            self._platform.log("INFO", f"the reload was cancelled: {why}")
        self._end()

    def worker_ended(self, worker: Worker, code: int) -> None:
        """Fail the rollout, because a worker of the coming generation has ended."""
        self._fail(worker.why_not_ready(code), worker.status, worker.errno)

    def worker_forked(self) -> None:
        """Enter the next stage with the first worker of the coming generation."""
        if self.stage is Stage.LOADING:
            self._enter(Stage.PREPARING)

    def worker_refused(self, error: OSError) -> None:
        """Fail the rollout, because a worker of the coming generation cannot be started."""
        refused = from_os_error("a worker cannot be started", error)
        self._fail([f"tamed: {refused}"], refused.status)

    def _time_out(self) -> None:
        name = self.serving.plan.name
        workers = [] if self.coming is None else self._pool.of(self.coming)
        late = [f"{each.who} is {each.state.value}" for each in workers if each.is_coming and each.pid]
        what = name if self._predecessor is None else "it"
        waits = ", ".join(late) or self._awaited
        why = f"{what} was not ready after {self._allowed:g} s: {waits}"
        self._fail([f"tamed: {why}"], ExitStatus.SOFTWARE)

    @property
    def _awaited(self) -> str:
        """The event that the rollout waits for, beside those of its workers."""
        is_preloaded = self.coming is not None and self.coming.plan.preload
        return (
            "the application is loaded" if self.stage is Stage.LOADING and is_preloaded else self.stage.value
        )

    def _fail(self, lines: Sequence[str], status: int, errno: int = 0) -> None:
        """Cancel the coming generation and report why. Only the first failure counts."""
        if not self.is_busy:
            return
        coming, predecessor = self.coming, self._predecessor
        what = "reload" if predecessor is not None else "start"
        reason = "\n".join(lines).removeprefix("tamed: ")
        text = f"the {what} failed: {lines[-1].removeprefix('tamed: ')}"
        self._history.record(text, outcome="failed", waited_for=self._awaited, reason=reason)
        self._end()
        if predecessor is not None:
            status = status or ExitStatus.SOFTWARE
            self._platform.log(
                "ERROR", f"reload failed, generation {self.serving.number} continues: {reason}"
            )
            if coming is not None:
                self._handovers.drain(self._pool.of(coming), ROLLBACK_GRACE)
            self._platform.notifier.ready(f"reload failed: {lines[-1].removeprefix('tamed: ')}")
        else:
            self._platform.report_failed(lines, status, errno)
        self._done({"fault": {"lines": list(lines), "status": status}})

    def _report_done(self) -> None:
        """Report that the new generation serves, with the times of the services in its slowest worker."""
        if not self.is_busy:  # it was cancelled in the meantime
            return
        is_reload, generation, platform = self._predecessor is not None, self.serving, self._platform
        self._end()
        line, answer = f"{generation.plan.name} is ready", {}
        if is_reload:
            workers = counted(generation.count, "worker")
            line = f"{generation.plan.name} was reloaded: generation {generation.number}, {workers}"
            answer = {"reloaded": line, **({"warnings": self._notes} if self._notes else {})}
            platform.log("INFO", line)
        timings = [worker.timings for worker in self._pool.of(generation) if worker.timings]
        slowest = max(timings, key=itemgetter("took"), default={})
        facts = {"outcome": "done", "generation": generation.number, "workers": generation.count}
        self._history.record(line, **{**slowest, **facts})
        if trouble := self._sockets.keep(generation.number):
            platform.log("WARNING", trouble)
        if is_reload:
            platform.notifier.ready(line)
        else:
            platform.report_ready(self._sockets.addresses(generation.number))
        self._done(answer)

    def _enter(self, stage: Stage) -> None:
        self.stage = stage
        self._history.enter(stage.name.lower().replace("_", " "))

    def _end(self) -> None:
        self.stage = Stage.IDLE
        self.coming = self._predecessor = None
        self._deadline.cancel()
        planner, self._planner = self._planner, None
        if planner is not None:
            self._helpers.kill(planner)

    def release(self, generation: Generation) -> None:
        """Close the sockets that only this generation used, once it has no workers left."""
        if generation not in (self.serving, self.coming) and not self._pool.of(generation):
            self._sockets.release(generation.number)

    def _set_deadline(self, seconds: float) -> None:
        """Set the deadline of the reading, or of a generation: each is measured by its own plan."""
        self._deadline.cancel()
        self._allowed = seconds
        self._deadline = self._reactor.later(seconds, self._time_out)

    # Upgrades: the handoff to the next program.

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
        """Resume from the state of the previous program; return the generations by their number."""
        generations = {
            data["number"]: Generation(data["number"], Plan.from_text(data["plan"]), data["count"])
            for data in left["generations"]
        }
        self.serving = generations[left["serving"]]
        self._last_number = left["last_number"]
        self._is_privileged = False
        return generations
