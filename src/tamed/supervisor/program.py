"""The supervisor as a program, which begins in one of three ways.

- In a process that `tamed start` forked before it read the command line (`tamed.control.head_start`).
- As ``python -m tamed.supervisor PLAN NAME``, where PLAN is a descriptor: a process of the command that has
  made the plan becomes this program by exec, which frees its memory.
- After an upgrade as ``python -m tamed.supervisor --resume STATE NAME``. STATE is the descriptor of the state
  that the previous program of this process exported.

The plan is data: nothing of the command's parser, the user's options or other packages is in this process.
"""

import faulthandler
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tamed._os.descriptors import close_on_exec
from tamed._os.identity import Identity
from tamed._os.limits import limit_open_files
from tamed._os.unix_sockets import SocketFile
from tamed.errors import ExitStatus, TamedError, reason, status_of
from tamed.ipc.channel import Channel
from tamed.ipc.handoff import Data, HandoffState, Keep
from tamed.log.layout import layout_of
from tamed.log.sink import open_sink
from tamed.net.inherit import Inheritance, passed_descriptors
from tamed.supervisor.control import ControlApi, ControlServer
from tamed.supervisor.ending import SIGNALS
from tamed.supervisor.intake import Intake, LogTail
from tamed.supervisor.kept_sockets import KeptSockets
from tamed.supervisor.loop import Reactor
from tamed.supervisor.plan import Plan
from tamed.supervisor.plan_file import PlanFile
from tamed.supervisor.platform import PosixPlatform, print_error
from tamed.supervisor.records import EventLog, LastState, events_path
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.spawner import FirstTemplate
from tamed.supervisor.status import StateNotifier, StatusRequests
from tamed.supervisor.supervisor import Phase, Supervisor
from tamed.supervisor.upgrade import Upgrader
from tamed.unix.detach import leave_terminal
from tamed.unix.housekeeping import INTERVAL, Duty, Housekeeping, InstanceFolder
from tamed.unix.pidfile import PidFile
from tamed.unix.privileges import AS_ROOT, forbid_tracing, stays_root
from tamed.unix.process import end_by_signal, ignore_to_the_end
from tamed.unix.report import Reporter
from tamed.unix.rundir import Instance

if TYPE_CHECKING:
    from tamed.supervisor.ops import OpsProcess

__all__ = ["main", "supervise"]


def main() -> NoReturn:
    """Supervise a new plan, or resume from an exported state; exit with the status of the daemon."""
    left = _take_over(int(sys.argv[2])) if sys.argv[1] == "--resume" else None
    plan = Plan.take_over(int(sys.argv[1])) if left is None else _plan_in(left)
    supervise(plan._replace(template=None), FirstTemplate.of(plan), left)


def supervise(plan: Plan, first: FirstTemplate | None = None, left: Data | None = None) -> NoReturn:
    """Supervise a plan, with its first template if there is one, and exit with the status of the daemon.

    ``left`` is the state that the previous program of this process exported.
    """
    faulthandler.enable()  # a crash, or SIGABRT of the service manager's watchdog, writes the stack
    if plan.answers:  # a core dump would contain them
        forbid_tracing()
    reporter = Reporter(plan.report) if plan.report >= 0 else None
    why = f"tamed: {plan.name} was asked to stop before it was ready"
    try:
        with ExitStack() as held:
            status = _Holdings(plan, reporter, left, first, held).supervise()
    except TamedError as error:
        status = status_of(error)
        why = f"tamed: {error}"
        print_error(why)
    if reporter is not None:
        reporter.failed(why, status or ExitStatus.SOFTWARE)  # does nothing if a report was sent before
    ignore_to_the_end({*SIGNALS} - {signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD})
    if status < 0:
        status = end_by_signal(-status)
    sys.exit(status)


def _take_over(descriptor: int) -> Data:
    """Read the exported state. A process that dropped root stays untraceable."""
    left = HandoffState.take_over(descriptor)
    if not left["traceable"]:
        forbid_tracing()
    return left


def _plan_in(left: Data) -> Plan:
    rollout = left["supervisor"]["rollout"]
    serving = next(each for each in rollout["generations"] if each["number"] == rollout["serving"])
    return Plan.from_text(serving["plan"])


class _Holdings:
    """The resources that outlive workers, acquired in order; ``held`` releases them in reverse order.

    ``left`` is the state that the previous program exported, None at a first start. ``first`` is the template
    that the command has made.
    """

    def __init__(
        self,
        plan: Plan,
        reporter: Reporter | None,
        left: Data | None,
        first: FirstTemplate | None,
        held: ExitStack,
    ) -> None:
        self._left = left
        self._held = held
        self._first = first
        held.callback(self._end_first)
        identity = Identity.named(plan.user, plan.group)
        owner = self._owner = identity if left is None else None
        self.reactor = Reactor()
        held.callback(self.reactor.close)
        self.begun = self.reactor.clock() if left is None else left["begun"]
        self.reactor.hold_signals(SIGNALS)  # from here on, none of them ends this process without a cleanup
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # The descriptors that came through the exec of the command. An upgrade lists those that it keeps.
        inherited = close_on_exec()
        passed = inherited if left is None else left["passed"]
        self._passed = {0, 1, 2, *passed} - {plan.report, *(() if first is None else first.descriptors)}
        if plan.max_files is not None:
            limit_open_files(plan.max_files)
        self._instance = Instance(plan.name, Path(plan.control).parent)
        if plan.control:
            self._hold_folder()
        self.pid_file = self._hold_pid_file(plan.pid_file, "pid_file")
        if left is None:
            LastState.forget(self._instance)
        self.second_pid_file = self._hold_pid_file(plan.second_pid_file, "second_pid_file")
        self.plan_file = self._hold_plan_file(plan)
        sink = open_sink(plan.log, plan.name, owner)
        self.events = EventLog()
        no_events = self.events.open(events_path(plan, plan.log), owner, is_temporary=plan.log.kind != "file")
        held.callback(self.events.close)
        self.intake = Intake(self.reactor, sink, layout_of(plan.log.layout), instance=plan.name)
        held.callback(self.intake.close)
        if first is not None:
            self.intake.attach(first.pid, first.records, first.output)
        inheritance = Inheritance(os.environ, plan.listen_pid, passed=self._passed)
        stored = inheritance.stored() if left is None else {}
        self._passed -= stored.keys()  # `KeptSockets` closes them one by one
        self.sockets = SocketTable(inheritance, identity, KeptSockets.from_environ(os.environ, stored))
        held.callback(self.sockets.close)
        self.platform = PosixPlatform(
            plan,
            self.reactor,
            self.intake,
            identity=identity,
            reporter=reporter,
            environ=os.environ,
            events=self.events,
            close_unused=self._close_unused,
        )
        if no_events:
            self.platform.log("WARNING", no_events)
        self.supervisor = Supervisor(plan, self.sockets, self.platform)
        self.events.added = self.supervisor.pool.publish
        self.notifier = StateNotifier(self.supervisor, self.platform)
        self.reactor.on_signal = self.supervisor.ending.signalled
        self.supervisor.on_upgrade = Upgrader(
            self.supervisor.helpers,
            self.platform,
            self._export,
            failed=self.supervisor.operations.finish,
            upgrading=self._announce_upgrade,
        ).begin
        self.housekeeping = Housekeeping(
            log=self.platform.log,
            changed=self.platform.notifier.troubled,
            housekeep_log=self._housekeep_log,
            lost_sockets=lambda: self.sockets.lost(self.supervisor.generation.number),
        )
        self.status = StatusRequests(self.supervisor, self.reactor, self.sockets, self.events, self.begun)
        self.ops = self._hold_ops(plan, inheritance, identity) if plan.ops else None
        self.control = self._hold_control(Path(plan.control)) if plan.control else None
        self.housekeeping.duties += self._duties(plan)

    def _hold_folder(self) -> None:
        """Hold the folder of the instance; an earlier one of that name may have removed it at its end."""
        self._held.callback(self._instance.remove_if_empty)
        if self._left is None:
            InstanceFolder(self._instance, self._owner).housekeep()

    def _hold_pid_file(self, path: str, key: str) -> PidFile | None:
        """Hold a pid file; ``key`` is its key in the exported state."""
        if not path:
            return None
        if self._left is None:
            return self._held.enter_context(PidFile.acquire(Path(path), owner=self._owner))
        return self._held.enter_context(PidFile.adopt(Path(path), **self._left[key]))

    def _hold_plan_file(self, plan: Plan) -> PlanFile | None:
        if not plan.plan_file:
            return None
        plan_file = PlanFile.write(plan) if self._left is None else PlanFile(plan)
        self._held.callback(plan_file.remove)
        return plan_file

    def _hold_ops(self, plan: Plan, inheritance: Inheritance, identity: Identity | None) -> "OpsProcess":
        """Bind the operations endpoint, and make the memory for what it shows."""
        from tamed.metrics.ledger import Ledger  # lazy import: most daemons have no such endpoint
        from tamed.supervisor.ops import OpsAnswers, OpsProcess

        metrics = self.supervisor.pool.metrics = Ledger()
        self._held.callback(metrics.close)
        sockets = SocketTable(inheritance, identity)
        self._held.callback(sockets.close)
        tail = self.intake.tail = LogTail()
        answers = OpsAnswers(
            self.supervisor,
            self.reactor,
            metrics=metrics,
            status=self.status,
            events=self.events,
            log=tail,
            lost=lambda: self.intake.lost,
            sockets=self.sockets,
        )
        process = OpsProcess(
            plan,
            self.platform,
            sockets,
            serve=answers.serve,
            is_starting=lambda: self.supervisor.phase is Phase.STARTING,
        )
        self.supervisor.on_child_ended = process.ended
        self.supervisor.ending.end_others = process.end
        if self._left is None or self._left["ops"] is None:
            process.bind()
        return process

    def _hold_control(self, path: Path) -> ControlServer:
        api = ControlApi(self.supervisor, self.status, self.platform)
        control = None if self._left is None else self._left["control"]
        server = ControlServer(
            path,
            self.reactor,
            api.serve,
            owner=self._owner,
            inherited=None if control is None else (control["socket"], SocketFile(**control["file"])),
            warnings=self.housekeeping.look,
        )
        self._held.callback(server.close)
        return server

    def supervise(self) -> int:
        """Supervise until the daemon ends; return its status, as `Ending` has it.

        A bug in the supervisor is logged; the workers then end on their own. If a daemon that was ready ends
        without a request, the reason is kept in a file for later commands.
        """
        supervisor, platform = self.supervisor, self.platform
        try:
            self.notifier.watch()
            if self._left is None:
                self._start()
            else:
                self._resume(self._left)
            self._keep_house()
            self.reactor.run()
            failure, status = supervisor.ending.failure, supervisor.ending.status
        except Exception as error:
            import traceback

            platform.log("CRITICAL", f"the supervisor failed\n{traceback.format_exc().rstrip()}")
            failure, status = f"the supervisor failed: {reason(error)}", int(ExitStatus.SOFTWARE)
            platform.notifier.stopping(failure)
        platform.notifier.send({"EXIT_STATUS": str(status if status >= 0 else 128 - status)})
        plan = supervisor.plan
        if failure and plan.control and supervisor.phase is not Phase.STARTING:
            LastState.now(plan.name, failure, status, plan.log.path).leave(self._instance)
            self.events.keep()
            if self.plan_file is not None:
                self.plan_file.keep()
        why = failure or ("the daemon could not start" if status > 0 else "ended on request")
        platform.record("end", why, status=status)
        return status

    def _start(self) -> None:
        self.platform.on_unawaited = self._stop_unawaited
        if stays_root(self.supervisor.plan.user):
            self.platform.log("WARNING", AS_ROOT)
        if self._first is not None:
            channel = Channel(socket.socket(fileno=self._first.channel))
            self.supervisor.pool.templates.adopt(self.supervisor.generation, self._first.pid, channel)
            self._first = None
        # The template, or the process that read the command line, may already have ended.
        self.reactor.return_signals(bytes([signal.SIGCHLD]))
        self.supervisor.start()
        if self.ops is not None:
            self.ops.start()

    def _end_first(self) -> None:
        if self._first is not None:
            self._first.end()

    def _resume(self, left: Data) -> None:
        self.sockets.resume(left["sockets"])
        self.intake.resume(left["log"])
        self.events.resume(left["events"])
        self.platform.resume(left["children"])
        if self.ops is not None:
            self._resume_ops(self.ops, left)
        replies = {} if self.control is None else self.control.resume(left["clients"])
        self.supervisor.resume(left["supervisor"], replies)
        if self.control is not None:
            for reply in replies.values():  # requests that are not operations, for example for the status
                self.control.serve(reply)
        self.reactor.return_signals(bytes(left["signals"]))

    def _resume_ops(self, ops: "OpsProcess", left: Data) -> None:
        """Resume the operations endpoint of the previous program, if it had one."""
        metrics = self.supervisor.pool.metrics
        if left["ops"] is None or metrics is None:
            ops.start()
        else:
            metrics.resume(left["metrics"])
            ops.resume(left["ops"])

    def _keep_house(self) -> None:
        """Do the housekeeping and notify the service manager, now and from now on once a second."""
        self.housekeeping.look()
        self.notifier.look()
        self.reactor.later(INTERVAL, self._keep_house)

    def _stop_unawaited(self) -> None:
        """The command that started the daemon was killed: nobody would learn that it runs."""
        why = "the command that started the daemon has ended before it was ready: stopping"
        self.platform.log("WARNING", why)
        self.supervisor.ending.stop(why=why)

    def _announce_upgrade(self, is_upgrading: bool) -> None:
        if self.ops is not None:
            self.ops.announce_upgrade(is_upgrading)

    def _close_unused(self) -> None:
        """Close the inherited descriptors on which no server listens, and leave the terminal."""
        wanted = {0, 1, 2, *passed_descriptors(os.environ), *self.sockets.inherited}
        for descriptor in self._passed - wanted:
            os.close(descriptor)
        self._passed &= wanted
        leave_terminal()

    def _duties(self, plan: Plan) -> Iterator[Duty]:
        """Yield the files to check; the control socket last, because its existence implies the others."""
        if plan.control:
            folder = InstanceFolder(self._instance, self._owner)
            yield Duty(f"directory {self._instance.directory}", folder.housekeep, is_base=True)
        if self.pid_file is not None:
            yield Duty(f"pid file {plan.pid_file}", self.pid_file.housekeep, is_base=True)
        if self.plan_file is not None:
            yield Duty(f"plan {plan.plan_file}", self.plan_file.housekeep)
        if self.second_pid_file is not None:
            yield Duty(f"pid file {plan.second_pid_file}", self.second_pid_file.housekeep)
        if self.control is not None:
            yield Duty(f"control socket {plan.control}", self.control.housekeep)

    def _housekeep_log(self) -> str:
        self.platform.look_for_oom()
        self.intake.sink.housekeep()  # first, so that the log reports a missing folder
        self.events.housekeep()
        return self.intake.sink.trouble

    def _export(self, keep: Keep) -> Data:
        """Return the state that the next program resumes from; see `Upgrader`."""
        metrics = self.supervisor.pool.metrics
        passed = [keep(each) for each in passed_descriptors(os.environ) if each in self._passed]
        return {
            "passed": passed,
            "begun": self.begun,
            "supervisor": self.supervisor.export(keep),
            "sockets": self.sockets.export(keep),
            "log": self.intake.export(keep),
            "events": self.events.export(),
            "children": self.platform.export(),
            "pid_file": self.pid_file and self.pid_file.export(keep),
            "second_pid_file": self.second_pid_file and self.second_pid_file.export(keep),
            "control": None
            if self.control is None
            else {"socket": keep(self.control.fileno()), "file": vars(self.control.file)},
            "ops": self.ops and self.ops.export(keep),
            "metrics": metrics and metrics.export(keep),
            "clients": [] if self.control is None else self.control.export(keep),
        }
