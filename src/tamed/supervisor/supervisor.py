"""The supervisor: the process that starts, replaces and stops workers.

It owns the resources that must outlive workers: the pid file, the listening sockets, the log and the control
socket. It is small: the standard library, one thread, and never the application's code, so that no error in
the application can crash it.

It has three phases. STARTING ends when every worker of the first generation is ready, or when one has failed,
which fails the start. RUNNING ends with a signal, when an application ends by its own choice, or when no
worker serves and every attempt to start one has failed, see ``scaling``. In this phase generations of
workers replace each other, see ``rollout``. In STOPPING the workers drain, see ``ending``.
"""

import enum
import signal
from collections.abc import Callable, MutableMapping

from tamed.errors import ExitStatus, Unavailable
from tamed.ipc.handoff import Data, Keep
from tamed.ipc.message import Message
from tamed.supervisor.ending import Ending
from tamed.supervisor.generation import Check, Generation, ServiceChecks, Worker, WorkerState
from tamed.supervisor.helpers import HelperProcesses
from tamed.supervisor.operations import Kind, Operation, Operations, Reply, fault
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import Platform
from tamed.supervisor.records import Figures
from tamed.supervisor.role_grants import RoleGrants
from tamed.supervisor.rollout import Handovers, Rollout
from tamed.supervisor.scaling import Recovery, Scaler
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.watchdog import MemoryLimit, Watchdog
from tamed.supervisor.watcher import Watching
from tamed.supervisor.workers import WorkerEvents, WorkerPool

__all__ = ["Phase", "Supervisor"]

_CRASHES = (
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL),
    *(signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP),
)
"""The signals that end a process after a crash."""


class Phase(enum.Enum):
    """The phases of the supervisor's life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Supervisor(WorkerEvents):
    """Supervises the workers of one daemon.

    ``generation`` is the one that serves. ``ending`` is how the daemon ends. ``recovery`` replaces lost
    workers, and ``roles`` grants roles to workers. ``operations`` is the queue of operations on the daemon.
    ``on_upgrade`` is called with the plan and the requester, to begin an upgrade to another program.
    ``on_child_ended`` is called with the pid and the exit code of a child that is not a worker. ``figures``
    are the counters, and ``checks`` the service checks.
    """

    def __init__(self, plan: Plan, sockets: SocketTable, platform: Platform) -> None:
        self._has_started = False
        self.on_upgrade: Callable[[Plan, str], object] = lambda _, __: None
        self.on_child_ended: Callable[[int, int], object] = lambda *_: None
        self.figures = Figures()
        self.pool = WorkerPool(self, sockets, platform)
        self.helpers = HelperProcesses(platform)
        self.checks = ServiceChecks(self._checks_of_workers, platform)
        self._watchdog = Watchdog(lambda: self.plan.heartbeat_interval, self.pool.workers, platform)
        self._handovers = Handovers(self.pool, self._watchdog)
        self.recovery = Recovery(self, self.pool, platform)
        self.roles = RoleGrants(self, self.pool, platform)
        self._rollout = Rollout(
            plan,
            self.pool,
            self._handovers,
            self.helpers,
            sockets=sockets,
            platform=platform,
            replaced=self.recovery.reset,
            done=self._rolled_out,
        )
        self._scaler = Scaler(self, self.pool, self._handovers, self.recovery, platform, scaled=self._scaled)
        self.operations = Operations(
            platform,
            begin={
                Kind.RELOAD: lambda operation: self._rollout.reload(operation.asked),
                Kind.UPGRADE: lambda operation: self.on_upgrade(self.plan, operation.asked),
                Kind.SCALE: self._scaler.begin,
            },
            refusal=lambda: f"{self.plan.name} is {self.state}" if self.is_draining else "",
        )
        self.ending = Ending(
            self,
            self.pool,
            self._watchdog,
            sockets,
            platform,
            cancel=self._cancel_operations,
            requests={
                signal.SIGUSR1: self._reopen_log,
                signal.SIGHUP: lambda asked: self.operations.reload(asked=asked),
                signal.SIGUSR2: lambda asked: self.operations.upgrade(asked=asked),
                signal.SIGTTIN: lambda asked: self._scale_by(1, asked),
                signal.SIGTTOU: lambda asked: self._scale_by(-1, asked),
            },
        )
        self._memory_limit = MemoryLimit(self, self.pool.workers, platform, self.worker_should_recycle)
        self._watching = Watching(
            self.helpers, platform, lambda: self.operations.reload(asked="a changed file")
        )
        self._reactor = platform.reactor
        self._platform = platform

    @property
    def phase(self) -> Phase:
        """The phase of the daemon's life."""
        if self.ending.has_begun:
            return Phase.STOPPING
        return Phase.RUNNING if self._has_started else Phase.STARTING

    @property
    def is_running(self) -> bool:
        """Whether lost workers are replaced: not during the first start or a stop."""
        return self.phase is Phase.RUNNING

    @property
    def generation(self) -> Generation:
        """The serving generation; during the first start, the one that is starting."""
        return self._rollout.serving

    @property
    def plan(self) -> Plan:
        """The plan of the generation that serves."""
        return self.generation.plan

    @property
    def ready(self) -> int:
        """The number of workers of the serving generation that are ready and were not asked to leave."""
        return sum(worker.state is WorkerState.READY for worker in self.pool.of(self.generation))

    @property
    def state(self) -> str:
        """The state: starting, running, degraded, failing (no worker is ready) or stopping.

        It is degraded if too few workers are ready, or if a check of a service fails.
        """
        if self.is_draining:
            return "stopping"
        is_whole = self.ready >= self.generation.count and not self.checks.failing
        if self.phase is not Phase.RUNNING or is_whole:
            return self.phase.value
        return "degraded" if self.ready else "failing"

    @property
    def is_stuck(self) -> bool:
        """Whether no worker serves, and one cannot be killed and so not replaced."""
        return self.ready == 0 and self._watchdog.cannot_kill

    @property
    def progress(self) -> str:
        """What a start, reload or stop waits for; empty if none is in progress, or it takes too long."""
        if self.is_draining or not self._rollout.is_busy:
            return self.ending.progress
        return f"{'reloading' if self.is_reloading else 'starting'} ({self._rollout.stage.value})"

    @property
    def is_draining(self) -> bool:
        """Whether the daemon is about to end: it should get no new clients."""
        return self.ending.is_announced

    @property
    def is_reloading(self) -> bool:
        """Whether a new generation is starting."""
        return self.phase is not Phase.STARTING and self._rollout.is_busy

    def start(self) -> None:
        """Begin to start the workers; the event loop does the rest."""
        self._watchdog.watch()
        self._memory_limit.watch()
        self._rollout.start()

    def reopen(self) -> Data:
        """Reopen the log file, as SIGUSR1 does; return the outcome."""
        name, log = self.plan.name, self.plan.log
        if log.kind != "file":
            return fault(f"{name} has no log file", status=ExitStatus.NO_INPUT)
        if trouble := self._reopen_log("reopen"):
            return fault(trouble, status=ExitStatus.CANNOT_CREATE)
        return {"reopened": f"{name} has reopened its log: {log.path}"}

    def _reopen_log(self, asked: str) -> str:
        trouble = self._platform.reopen_log()
        self._platform.log("WARNING" if trouble else "INFO", f"{asked}: {trouble or 'the log was reopened'}")
        return trouble

    def _scale_by(self, change: int, asked: str) -> None:
        self.operations.submit(Operation(Kind.SCALE, change=change, asked=asked))

    # The ends of operations.

    def _rolled_out(self, outcome: Data) -> None:
        """Handle the end of the start or of a reload."""
        if self.phase is Phase.RUNNING:
            self.figures.reloaded(self._reactor.clock() - self._rollout.began, failed="fault" in outcome)
        if self.phase is Phase.STARTING:
            if "fault" in outcome:
                lines, status = outcome["fault"]["lines"], outcome["fault"]["status"]
                self.ending.stop(status, why=lines[-1].removeprefix("tamed: "))
                return
            self._has_started = True
        if not self.generation.plan.reload:  # any more: its workers report no files
            self._watching.pause()
        self.roles.look()
        self._tend_templates()
        self.operations.finish(outcome)
        self.recovery.look()

    def _scaled(self, outcome: Data) -> None:
        """Handle the end of scaling."""
        self._tend_templates()
        self.operations.finish(outcome)

    def _tend_templates(self) -> None:
        if self.phase is Phase.RUNNING and not self._rollout.is_busy:
            self.pool.templates.tend(self.generation, is_whole=self.ready == self.generation.count)

    def _cancel_operations(self) -> None:
        """Cancel all operations, and answer their callers."""
        why = f"{self.plan.name} stops"
        self.operations.cancel(fault(why))
        self.roles.end(why)
        self._scaler.end()
        self._rollout.cancel(why)
        self._watching.end()
        self.helpers.end()

    # Upgrades: the handoff to the next program.

    def export(self, keep: Keep) -> Data:
        """Return this as data, for the next program. Raises Unavailable if the daemon stops."""
        workers = self.pool.export(keep)  # first, because their last messages may change the rest
        if self.phase is not Phase.RUNNING or self.is_draining:
            raise Unavailable("cannot upgrade", f"{self.plan.name} is {self.state}")
        return {
            "recovery": self.recovery.export(),
            "rollout": self._rollout.export(),
            "workers": workers,
            "templates": self.pool.templates.export(keep),
            "helpers": self.helpers.export(),
            "watching": self._watching.export(),
            "operations": self.operations.export(),
            "roles": self.roles.export(),
            "figures": self.figures.export(),
            "checks": self.checks.export(),
        }

    def resume(self, left: Data, replies: MutableMapping[int, Reply]) -> None:
        """Resume from the state of the previous program, instead of `start`; then reload.

        Changes during the exec are detected by comparing the actual state with the wanted one. The operations
        take the replies to their callers out of ``replies``.
        """
        self._has_started = True
        self.recovery.resume(left["recovery"])
        generations = self._rollout.resume(left["rollout"])
        self.roles.resume(left["roles"])
        self.pool.resume(left["workers"], generations)
        self.pool.templates.resume(left["templates"])
        self.helpers.resume(left["helpers"])
        self.operations.resume(left["operations"], replies)
        self._scaler.resume()
        self._watching.add(left["watching"])
        self.figures.resume(left["figures"])
        self.checks.resume(left["checks"])
        self._watchdog.resume()
        self._memory_limit.watch()
        self.ending.reap()
        self.roles.look()
        self.recovery.look()
        self._rollout.reload("the upgrade")

    # Events of workers.

    def worker_advanced(self, worker: Worker) -> None:
        if self.phase is Phase.STOPPING:
            return
        if worker.state is WorkerState.READY:
            self._platform.settle()
            self._memory_limit.began(worker)
        if worker.generation is self._rollout.coming:
            self._rollout.advance()
        elif worker.state is WorkerState.PREPARED:
            self.pool.let_start(worker)
        elif worker.state is WorkerState.READY:
            self._platform.log("INFO", f"worker {worker.pid} is ready")
            self._scaler.worker_ready(worker)
            self._tend_templates()
        self.roles.look()
        self.recovery.look()

    def role_reported(self, worker: Worker, message: Message) -> None:
        self.roles.reported(worker, message)
        self.checks.look()

    def worker_leaves(self, worker: Worker) -> None:
        self.roles.worker_leaves(worker)

    def worker_checked(self, _: Worker) -> None:
        self.checks.look()

    def _checks_of_workers(self) -> list[list[Check]]:
        workers = self.pool.of(self.generation)
        ready = [each.checks for each in workers if each.state is WorkerState.READY]
        return [*ready, self.roles.checks()]

    def files_read(self, files: dict[str, int]) -> None:
        self._watching.add(files)

    def child_ended(self, pid: int, code: int) -> None:
        self.helpers.ended(pid, code)
        self.on_child_ended(pid, code)
        self._tend_templates()  # it may have been one of them

    def worker_forked(self, worker: Worker) -> None:
        if worker.generation is self._rollout.coming:
            self._rollout.worker_forked()
        else:
            self.recovery.forked(worker)

    def worker_refused(self, worker: Worker, error: OSError) -> None:
        if self.phase is Phase.STOPPING:
            return
        if worker.generation is self._rollout.coming:
            self._rollout.worker_refused(error)
        elif worker.generation is self.generation:
            self.recovery.refused(worker, error)
            self.recovery.look()
        self._rollout.release(worker.generation)

    def worker_should_recycle(self, worker: Worker, why: str) -> bool:
        is_due = self.recovery.is_due(worker.number)
        is_free = self.phase is Phase.RUNNING and not self.is_draining and self.operations.running is None
        if not (is_free and is_due):
            return False
        return self._scaler.recycle(worker, why)

    def worker_ended(self, worker: Worker, code: int) -> None:
        is_stopping = self.phase is Phase.STOPPING
        self.figures.worker_ended(worker.reason_of_end(code, is_stopping=is_stopping))
        kind, text, facts = worker.end_event(code, self._reactor.clock())
        self._platform.record(kind, text, **facts)
        self.checks.look()
        match self.phase:
            case Phase.STOPPING:
                self.ending.worker_ended(worker, code)
            case _ if worker.generation is self._rollout.coming:
                self._rollout.worker_ended(worker, code)
            case _ if worker.is_surplus:
                if code not in (0, -signal.SIGTERM):
                    self._platform.log("WARNING", f"{worker.how_it_ended(code)}; it was about to leave")
            case _ if worker.leaving is not None and worker.has_chosen_to_end:
                self._platform.log("INFO", f"the application ends, with status {worker.leaving}: stopping")
                failure = f"the application ended, with status {worker.leaving}"
                self.ending.stop(worker.leaving, failure=failure)
            case _:
                self._scaler.worker_ended(worker)
                self._lost(worker, code)
        self.roles.worker_ended(worker)
        self._rollout.release(worker.generation)

    def _lost(self, worker: Worker, code: int) -> None:
        """Replace a lost worker; stop if no worker serves and no attempt is left."""
        is_loading = any(each.state is WorkerState.LOADING for each in self.pool.of(self.generation))
        if -code in _CRASHES:
            self.pool.templates.crashed(self.generation, is_loading=is_loading)
        if self.recovery.lost(worker, code, is_served=self.ready > 0 or self._rollout.is_busy):
            self.recovery.look()
        else:
            self.ending.stop(worker.status or ExitStatus.SOFTWARE, failure=worker.how_it_ended(code))
