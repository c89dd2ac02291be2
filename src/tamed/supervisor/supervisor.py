"""The supervisor: the process that stays.

It holds what must outlive any worker: the pid file, the listening sockets, the log and the control socket. It
starts the workers, replaces those that die, and stops them. It is small: the standard library, one thread,
and never the application's code, so that nothing in the application can take it down.

Its own life has three phases. STARTING ends when every worker of the first generation is ready, or one has
failed, which fails the start. RUNNING ends with a signal, with the wish of an application to end, or when
nobody serves any more and every attempt to change that has failed, see ``_recovery``; in it generations of
workers follow each other, see ``_reload``. In STOPPING the workers drain, and the last one to end ends the
supervisor.
"""

import enum
import signal
from collections.abc import Callable, Iterable, MutableMapping, Sequence

from tamed._os.limits import most_workers
from tamed.errors import ExitStatus, TamedError, Unavailable, reason, status_of
from tamed.ipc.handoff import Data, Keep
from tamed.supervisor.control import Answer, Reply
from tamed.supervisor.generation import Generation, Worker, WorkerState
from tamed.supervisor.helpers import HelperProcesses
from tamed.supervisor.loop import Reactor, Timer
from tamed.supervisor.operations import Kind, Operation, Operations, fault
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import Platform
from tamed.supervisor.recovery import Recovery
from tamed.supervisor.rollout import Rollout
from tamed.supervisor.scaling import Handovers, Scaler
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.watchdog import MemoryLimit, Watchdog
from tamed.supervisor.watching import Watching
from tamed.supervisor.workers import WorkerPool

__all__ = ["SIGNALS", "Phase", "Supervisor"]

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)
"""What `Supervisor.signalled` is to be called with."""

_ROLLBACK_GRACE = 5.0  # seconds for the workers to undo a start that failed
_LAST_GRACE = 10.0  # seconds for processes that were killed to be gone


class Phase(enum.Enum):
    """The phases of the supervisor's life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Supervisor:
    """Supervises the workers of one daemon.

    ``generation`` is the one that serves. ``status`` is the exit status, once the reactor has been stopped;
    negative for the signal by which the process is to end. ``failure`` says why it ends, if nobody asked for
    that. ``recovery`` replaces workers that were lost. ``operations`` is what is being done with the daemon
    and what is to be done next. ``on_upgrade`` is called with the plan when another program is to take this
    one's place.
    """

    def __init__(self, plan: Plan, reactor: Reactor, sockets: SocketTable, platform: Platform) -> None:
        self.generation = Generation(1, plan, plan.workers)
        self.phase = Phase.STARTING
        self.status = int(ExitStatus.OK)
        self.failure = ""
        self.on_upgrade: Callable[[Plan], None] = _ignore
        self.operations = Operations(self._begin)
        self.pool = WorkerPool(self, reactor, sockets, platform)
        self.helpers = HelperProcesses(reactor, platform)
        self._watchdog = Watchdog(plan.heartbeat_interval, self.pool.workers, reactor, platform)
        self._handovers = Handovers(self.pool, self._watchdog, reactor)
        self.recovery = Recovery(
            reactor,
            missing=self._missing,
            has_room=lambda: self._scaler.has_room(self.generation),
            spawn=self._spawn,
        )
        self._scaler = Scaler(
            self.pool,
            self._handovers,
            reactor,
            platform,
            serving=lambda: self.generation,
            spawn=self._spawn,
            reconcile=self.recovery.look,
            scaled=self.operations.finish,
        )
        self._rollout = Rollout(
            self.pool,
            self._scaler,
            self._watchdog,
            self.helpers,
            reactor=reactor,
            platform=platform,
            serving=lambda: self.generation,
            take_over=self._hand_over_to,
            done=self._reloaded,
        )
        self._watching = Watching(self.helpers, platform, self.reload)
        self._reactor = reactor
        self._sockets = sockets
        self._platform = platform
        self._is_privileged = True
        self._told_state = ""
        self._deadline = 0.0  # of a stop
        self._look: Timer | None = None
        self._memory_limit = MemoryLimit(
            self.pool.workers,
            reactor,
            platform,
            serving=lambda: self.generation,
            recycle=self.worker_should_recycle,
        )

    @property
    def plan(self) -> Plan:
        """The plan of the generation that serves."""
        return self.generation.plan

    @property
    def ready(self) -> int:
        """How many workers of the generation that serves are ready, and not about to leave."""
        return sum(worker.state is WorkerState.READY for worker in self.pool.of(self.generation))

    @property
    def state(self) -> str:
        """How it stands: starting, running, degraded (too few are ready), failing (none is) or stopping."""
        if self.phase is not Phase.RUNNING or self.ready >= self.generation.count:
            return self.phase.value
        return "degraded" if self.ready else "failing"

    @property
    def is_reloading(self) -> bool:
        """Whether a new generation is on the way."""
        return self._rollout.is_busy

    def start(self) -> None:
        """Start the workers; what comes of it is seen to by the reactor."""
        self._reactor.later(self.plan.start_timeout, self._start_overran)
        self._watchdog.watch()
        self._memory_limit.watch()
        self._notify_alive()
        try:
            self.pool.bring_up(self.generation, self._fill, self._fail)
        except OSError as error:
            self._fail([f"tamed: the application cannot be preloaded: {reason(error)}"], ExitStatus.OS_ERROR)

    def stop(self, status: int = ExitStatus.OK) -> None:
        """Stop every worker, and then the reactor. The first call counts, and so does its exit status.

        Workers that serve have the plan's ``stop_timeout`` for it. Those of a start that has not come to its
        end have a few seconds.
        """
        if self.phase is Phase.STOPPING:
            return
        grace = _ROLLBACK_GRACE if self.phase is Phase.STARTING else self.plan.stop_timeout
        self.phase = Phase.STOPPING
        self._deadline = self._reactor.clock() + grace
        self.status = int(status)
        self._give_up()
        self._platform.notify_stopping()
        # Clients must not wait in a queue that nobody will serve; the workers take what is in it by now.
        self._sockets.close()
        self.pool.templates.end()
        for worker in self.pool.workers.values():
            self.pool.terminate(worker)
        self._watchdog.kill_after(self.pool.workers.values(), grace)
        self._end_if_alone()

    def signalled(self, number: signal.Signals) -> None:
        """Do what a signal asks for."""
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGUSR1:
                self._reopen_log(number.name)
            case signal.SIGQUIT:
                self._end_at_once(number)
            case signal.SIGINT if self.phase is Phase.STOPPING:
                self._end_at_once(number)
            case signal.SIGHUP:
                self.reload()
            case signal.SIGUSR2:
                self.upgrade()
            case signal.SIGTTIN:
                self._submit(Operation(Kind.SCALE, change=1))
            case signal.SIGTTOU:
                self._submit(Operation(Kind.SCALE, change=-1))
            case _ if self.phase is not Phase.STOPPING:
                self._platform.log("INFO", f"{number.name}: stopping")
                self.stop()

    def reopen(self) -> Data:
        """Open the log file anew, as SIGUSR1 does; return what became of it, for whoever asked."""
        name, log = self.plan.name, self.plan.log
        if log.kind != "file":
            return fault(f"{name} has no log file", status=ExitStatus.NO_INPUT)
        if trouble := self._reopen_log("reopen"):
            return fault(trouble, status=ExitStatus.CANNOT_CREATE)
        return {"reopened": f"{name} has opened its log anew: {log.path}"}

    def _reopen_log(self, asked: str) -> str:
        trouble = self._platform.reopen_log()
        self._platform.log(
            "WARNING" if trouble else "INFO", f"{asked}: {trouble or 'the log was opened anew'}"
        )
        return trouble

    # Operations: each of these returns what it waits for, or None if it has begun or was refused.

    def reload(self, answers: Sequence[Answer] = ()) -> str | None:
        """Bring up a new generation of workers in the place of this one; see `Rollout`."""
        return self._submit(Operation(Kind.RELOAD, answers))

    def upgrade(self, answers: Sequence[Answer] = ()) -> str | None:
        """Let a new program take this one's place, and then reload.

        The answers are called when the whole of it has succeeded, by the new program, or has failed.
        """
        return self._submit(Operation(Kind.UPGRADE, answers))

    def notify_state(self) -> None:
        """Tell the system's manager how it stands, if that has changed; to be called now and then."""
        if self.phase is not Phase.RUNNING:
            return
        told = ""
        if self.state != "running":
            told = f"{self.state}: {self.ready} of {self.generation.count} workers ready"
            told += f"; last error: {self.recovery.last_error}" if self.recovery.last_error else ""
        if told != self._told_state:
            self._told_state = told
            self._platform.notify_status(told or f"running: {self.ready} workers ready")

    def scale(self, count: int, answers: Sequence[Answer] = (), *, yes: bool = False) -> str | None:
        """Have so many workers from now on; ``yes`` says that a very large number is meant.

        The answers are called when so many are ready.
        """
        most = most_workers(self._platform.cpus, yes=yes)
        if 1 <= count <= most:
            return self._submit(Operation(Kind.SCALE, answers, workers=count))
        if count < 1:
            why = "one worker is the least"
        else:
            why = f"{most} workers are the most" + ("" if yes else ", unless --yes says that more are meant")
        self._refuse(Operation(Kind.SCALE, answers), f"cannot scale: {why}", ExitStatus.USAGE)
        return None

    def _submit(self, operation: Operation) -> str | None:
        if self.phase is Phase.STOPPING:
            self._refuse(operation, f"the daemon is {self.phase.value}", ExitStatus.UNAVAILABLE)
            return None
        return self.operations.submit(operation)

    def _refuse(self, operation: Operation, why: str, status: ExitStatus) -> None:
        self._platform.log("WARNING", why)
        operation.answer(fault(why, status=status))

    def _begin(self, operation: Operation) -> None:
        """Do an operation, whose turn it is."""
        match operation.kind:
            case Kind.RELOAD:
                self._rollout.begin()
            case Kind.UPGRADE:
                self.on_upgrade(self.plan)
            case Kind.SCALE:
                self._scale(operation)

    def _scale(self, operation: Operation) -> None:
        count = self.generation.count if operation.workers is None else operation.workers
        wanted = count + operation.change
        if operation.change:
            most = max(count, most_workers(self._platform.cpus))
            if not 1 <= wanted <= most:
                why = "one worker is the least" if wanted < 1 else f"{most} workers are the most"
                self._platform.log("WARNING", f"cannot scale: {why}")
                wanted = min(max(wanted, 1), most)
        operation.workers, operation.change = wanted, 0
        self._scaler.scale(wanted)

    def _reloaded(self, outcome: Data) -> None:
        self.operations.finish(outcome)
        self.recovery.look()

    def _give_up(self) -> None:
        """Bring nothing up any more, and tell whoever waits for it."""
        self.operations.cancel(fault("the daemon stops"))
        self._scaler.end()
        self._rollout.give_up("the daemon stops")
        self._watching.end()
        self.helpers.end()

    # One program takes the place of another.

    def export(self, keep: Keep) -> Data:
        """Return what the next program needs to go on. Raises Unavailable if the daemon stops."""
        workers = self.pool.export(keep)  # first, because what they say now may change the rest
        if self.phase is not Phase.RUNNING:
            raise Unavailable("cannot upgrade", f"the daemon is {self.phase.value}")
        generations = {self.generation, *(worker.generation for worker in self.pool.workers.values())}
        return {
            "serving": self.generation.number,
            "recovery": self.recovery.export(),
            "last_number": self._rollout.last_number,
            "generations": [
                {
                    "number": each.number,
                    "plan": each.plan._replace(report=-1).to_text(),
                    "count": each.count,
                    "is_over": each.is_over,
                }
                for each in generations
            ],
            "workers": workers,
            "templates": self.pool.templates.export(keep),
            "helpers": self.helpers.export(),
            "watching": self._watching.export(),
            "operations": self.operations.export(),
        }

    def resume(self, left: Data, replies: MutableMapping[int, Reply]) -> None:
        """Go on where the program before has stopped, in the place of `start`; then reload.

        What happened meanwhile is found out by comparing what is with what should be. Of the replies to
        clients who wait, those are taken that an operation owes.
        """
        generations = {
            data["number"]: Generation(
                data["number"],
                Plan.from_text(data["plan"]),
                data["count"],
                is_up=True,
                is_over=data["is_over"],
            )
            for data in left["generations"]
        }
        self.generation = generations[left["serving"]]
        self.recovery.resume(left["recovery"])
        self.phase = Phase.RUNNING
        self._is_privileged = False
        self._rollout.last_number = left["last_number"]
        self.pool.resume(left["workers"], generations)
        self.pool.templates.resume(left["templates"])
        self.helpers.resume(left["helpers"])
        self.operations.resume(left["operations"], replies)
        self._scaler.resume()
        self._watching.resume(left["watching"])
        self._watchdog.interval = self.plan.heartbeat_interval
        self._watchdog.resume()
        self._memory_limit.watch()
        self._notify_alive()
        self._reap()
        self.recovery.look()
        self._rollout.begin()

    # The way to readiness.

    def worker_advanced(self, worker: Worker) -> None:
        """See `WorkerEvents`."""
        if worker.generation is self._rollout.generation:
            self._rollout.changed(worker)
            return
        if self.phase is Phase.STARTING:
            self._fill()
        match worker.state:
            case WorkerState.PREPARED:
                self._let_start()
            case WorkerState.STARTING:
                self._drop_privileges()
            case WorkerState.READY:
                self._became_ready(worker)
        self.recovery.look()

    def _let_start(self) -> None:
        """Let workers start, once all of the first generation have what they need privilege for."""
        if self.phase is Phase.STARTING and not self._scaler.have_come(self.generation, WorkerState.PREPARED):
            return
        for worker in self.pool.workers.values():
            if worker.state is WorkerState.PREPARED:
                self.pool.let_start(worker)

    def _drop_privileges(self) -> None:
        """Give up privilege once all workers have: until then it takes privilege to end one of them."""
        have_dropped = WorkerState.STARTING, WorkerState.READY
        if not self._is_privileged or not self._scaler.have_come(self.generation, *have_dropped):
            return
        self._is_privileged = False
        self.pool.templates.drop_privileges()
        try:
            self._platform.drop_privileges()
        except TamedError as error:
            self._fail([f"tamed: {error}"], status_of(error))

    def _became_ready(self, worker: Worker) -> None:
        self._platform.settle()
        self._memory_limit.began(worker)
        if self.phase is Phase.RUNNING:
            self._platform.log("INFO", f"worker {worker.pid} is ready")
            self._scaler.came(worker)
        elif self.phase is Phase.STARTING and self._scaler.have_come(self.generation, WorkerState.READY):
            self.phase = Phase.RUNNING
            self.generation.is_up = True
            self._handovers.begin([], self.pool.workers.values())
            self._platform.report_ready(self._sockets.addresses(self.generation.number))
            self.operations.finish({})

    def _start_overran(self) -> None:
        late = [
            f"worker {each.pid} is {each.state.value}"
            for each in self.pool.workers.values()
            if each.is_on_the_way
        ]
        at = ", ".join(late) or "the application is loaded"
        told = f"tamed: {self.plan.name} was not ready after {self.plan.start_timeout:g} s: {at}"
        self._fail([told], ExitStatus.SOFTWARE)

    def _fail(self, lines: Iterable[str], status: int) -> None:
        """End a start that has failed; the first reason counts."""
        if self.phase is Phase.STARTING:
            self._platform.report_failed(lines, status)
            self.stop(status)

    # Generations follow each other.

    def _hand_over_to(self, generation: Generation, done: Callable[[], None]) -> None:
        """Let a new generation serve, which is up; the one before serves those whom it has let in."""
        old, self.generation = self.generation, generation
        old.is_over = True
        self.pool.templates.end(old)
        self.recovery.begin_anew()
        self._platform.enter(generation.plan.directory)
        self._watchdog.interval = generation.plan.heartbeat_interval
        leaving = [worker for worker in self.pool.of(old) if not worker.is_surplus]
        self._handovers.begin(leaving, self.pool.of(generation), done)
        self._release(old)

    def _release(self, generation: Generation) -> None:
        """Close what only this generation listened on, once nobody of it is left."""
        if generation.is_over and not self.pool.of(generation):
            self._sockets.release(generation.number)

    def worker_shut(self, worker: Worker) -> None:
        """See `WorkerEvents`."""
        self._handovers.heard(worker)

    def files_read(self, files: dict[str, int]) -> None:
        """See `WorkerEvents`."""
        self._watching.add(files)

    def child_ended(self, pid: int, code: int) -> None:
        """See `WorkerEvents`."""
        self.helpers.ended(pid, code)

    def _left(self, worker: Worker, code: int) -> None:
        """See to the end of one that was drained."""
        if code not in (0, -signal.SIGTERM):
            self._platform.log("WARNING", f"{worker.how_it_ended(code)}; it was about to leave")
        self._release(worker.generation)

    def worker_should_recycle(self, worker: Worker, why: str) -> bool:
        """Replace a worker that should not go on; tell whether that begins: else it is asked for again."""
        is_due = self.recovery.is_due(worker.number)
        if self.phase is not Phase.RUNNING or not is_due or self.operations.running is not None:
            return False
        return self._scaler.recycle(worker, why)

    # Workers come and go.

    def _fill(self) -> None:
        """Start workers of the first generation, as many as may be on their way at a time."""
        try:
            self._scaler.fill(self.generation)
        except OSError as error:
            self._fail([f"tamed: a worker cannot be started: {reason(error)}"], ExitStatus.OS_ERROR)

    def _spawn(self, number: int, replaces: Worker | None = None) -> bool:
        """Start a worker of the generation that serves; tell whether that could be done."""
        try:
            self.pool.spawn(self.generation, number, replaces)
        except OSError as error:
            self._refused(number, f"a worker cannot be started: {reason(error)}")
            return False
        return True

    def _refused(self, number: int, told: str) -> None:
        """See to a worker for which the system has no room: it is tried again as long as the daemon lives."""
        if self.phase is Phase.RUNNING:
            self.recovery.note(told)
            wait = self.recovery.refused(number)
            self._platform.log("ERROR", f"{told}; it is tried again in {wait:.1f} s")
            self._scaler.failed(told, ExitStatus.OS_ERROR)

    def _missing(self) -> Iterable[int]:
        """Return the numbers of the workers that there should be and are not."""
        return self._scaler.missing(self.generation) if self.phase is Phase.RUNNING else ()

    def worker_ended(self, worker: Worker, code: int) -> None:
        """See `WorkerEvents`."""
        self._handovers.heard(worker)
        match self.phase:
            case Phase.STARTING:
                self._fail(worker.why_not_ready(code), worker.status)
            case Phase.RUNNING if worker.is_surplus:
                self._left(worker, code)
            case Phase.RUNNING if worker.generation is self._rollout.generation:
                self._rollout.ended(worker, code)
                self._release(worker.generation)
            case Phase.RUNNING if worker.leaving is not None:
                self.failure = f"the application ended, with status {worker.leaving}"
                self._platform.log("INFO", f"the application ends, with status {worker.leaving}: stopping")
                self.stop(worker.leaving)
            case Phase.RUNNING:
                self._scaler.left(worker)
                served = None if worker.ready is None else self._reactor.clock() - worker.ready
                self._lost(worker.number, worker.how_it_ended(code), worker.status, served)
                self.recovery.look()
            case Phase.STOPPING if code not in (0, -signal.SIGTERM) and self.status == ExitStatus.OK:
                self._platform.log("ERROR", worker.how_it_ended(code))
                if worker.ready is not None:  # a failed start is no matter to whoever wants it stopped
                    self.status = worker.status

    def _lost(self, number: int, told: str, status: int, served: float | None) -> None:
        """See to a worker that has ended: another one is tried while anybody serves or an attempt is left.

        ``served`` is for how long it did, None if it never became ready.
        """
        if self.phase is not Phase.RUNNING:
            return
        self.recovery.note(told)
        wait = self.recovery.failed(number, served or 0.0)
        holder = self._scaler.holder(number)
        if holder is not None:  # the one that it was to replace, or the one that was to replace it
            self._platform.log("ERROR", f"{told}; worker {holder.pid} has its place")
        elif self.ready or self._rollout.is_busy or not self.recovery.is_exhausted(self.generation.count):
            when = f"in {wait:.1f} s" if wait else "now"
            self._platform.log("ERROR", f"{told}; another one is started {when}")
            if served is None:
                self._scaler.failed(told, status)
        else:
            self.failure = told
            self._platform.log("CRITICAL", f"{told}; nobody serves, and no attempt is left: stopping")
            self.stop(status)

    # The end.

    def _end_at_once(self, number: signal.Signals) -> None:
        self._platform.log("WARNING", f"{number.name}: ending at once")
        self.phase = Phase.STOPPING
        self._deadline = 0.0
        self.status = -number
        self._give_up()
        self.pool.templates.end()
        for pid in self.pool.workers:
            self._platform.kill(pid)
        self._reactor.later(_LAST_GRACE, self._reactor.stop)
        self._end_if_alone()

    def _end_if_alone(self) -> None:
        grace = max(0.0, self._deadline - self._reactor.clock())
        if self.phase is Phase.STOPPING and not self.pool.workers and self._platform.end_all(grace):
            self._reactor.stop()
        self._look_again()

    def _reap(self) -> None:
        self.pool.reap()
        self._end_if_alone()

    def _look_again(self) -> None:
        """Have the children looked at when something is due of which no signal tells."""
        due = self._platform.due
        if self._look is not None:
            self._look.cancel()
        self._look = None if due is None else self._reactor.later(due, self._reap)

    def _notify_alive(self) -> None:
        """Tell the system's manager, as often as it wants to hear it, that all is well, while it is."""
        if self._platform.alive_interval is not None:
            self._reactor.later(self._platform.alive_interval, self._notify_alive)
            if self._watchdog.is_content:
                self._platform.notify_alive()


def _ignore(*_: object) -> None:
    """Take what nobody has asked for."""
