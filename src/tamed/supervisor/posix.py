"""The platform of a real supervisor: processes, signals, the log, reports and notifications."""

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tamed._os.cgroup import oom_kills
from tamed._os.descriptors import has_lost_terminal
from tamed._os.identity import Identity
from tamed._os.limits import usable_cpus
from tamed._os.proc import catches, children_of, memory_of
from tamed._os.text import shown
from tamed.ipc.handoff import Data
from tamed.log.layout import layout_of
from tamed.log.plan import LogPlan, is_journal
from tamed.log.sink import open_sink
from tamed.supervisor.events import EventLog, events_path
from tamed.supervisor.intake import Intake
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import PreparedFork, Remains
from tamed.supervisor.spawner import ChildPipes, Spawner
from tamed.unix.detach import Reporter
from tamed.unix.notify import Notifier, watchdog_interval
from tamed.unix.reaper import Reaper, signal_group
from tamed.unix.spawn import STACKS

__all__ = ["PosixPlatform", "print_error"]


class PosixPlatform:
    """The platform of a real supervisor; `Platform` documents its methods.

    ``reporter`` is None in the foreground, where errors go to standard error. ``close_unused`` is called just
    before privileges are dropped.
    """

    def __init__(
        self,
        plan: Plan,
        intake: Intake,
        *,
        identity: Identity | None,
        reporter: Reporter | None,
        environ: Mapping[str, str],
        events: EventLog,
        close_unused: Callable[[], None] = lambda: None,
    ) -> None:
        self.log, self.identify, self.printed_stacks = intake.log, intake.identify, intake.untap
        self.record, self.memory, self.has_lost_terminal = events.add, memory_of, has_lost_terminal
        self._events = events
        self._oom_kills = oom_kills()
        self._close_unused = close_unused
        self._plan = plan
        self._intake = intake
        self._log_plan = plan.log
        self._spawner = Spawner(plan, identity, environ)
        self._reporter = reporter
        self._notifier = Notifier.from_environ(environ)
        self.notify_progress, self.notify_alive = self._notifier.extend_timeout, self._notifier.watchdog
        self._state_line = ""
        self._troubles: list[str] = []
        interval = watchdog_interval(environ)
        self.alive_interval = None if interval is None else interval / 2
        spared = [each.pid for each in children_of(os.getpid()) if not intake.has(each.pid)]
        self._reaper = Reaper(intake.has, self.log, plan.stop_timeout, spared)

    @property
    def cpus(self) -> int:
        """The number of CPUs that this process and its workers may use now."""
        return usable_cpus()

    def spawn(self, channel: int, module: str, *words: str, plan: Plan | None = None) -> int:
        """Start a process and connect its pipes."""
        prepared = _PreparedFork(self._intake, "." if plan is None else plan.directory)
        try:
            interpreter = None if plan is None else plan.worker_interpreter
            pid = self._spawner.spawn(channel, prepared.theirs, module, *words, interpreter=interpreter)
        except BaseException:
            prepared.close()
            raise
        prepared.close_theirs()
        prepared.attach(pid)
        return pid

    def prepare_fork(self, plan: Plan) -> PreparedFork:
        """Make the pipes, and open the directory, for a child that a template will fork."""
        return _PreparedFork(self._intake, plan.directory)

    def ended(self) -> Iterator[tuple[int, int]]:
        """Reap children: workers, helpers, a compressor of the log, and adopted orphans."""
        self._reaper.spared.add(self._intake.sink.child)
        for pid, status in self._reaper.ended():
            if not self._intake.sink.child_ended(pid, status):
                yield pid, os.waitstatus_to_exitcode(status)

    @property
    def due(self) -> float | None:
        """The seconds until `ended` must be called without a signal."""
        return self._reaper.due

    def settle(self) -> None:
        """Spare the processes that earlier workers left running."""
        self._reaper.spared.add(self._intake.sink.child)
        self._reaper.settle()

    def end_all(self, grace: float) -> bool:
        """End the remaining children and their children."""
        self._reaper.spared.add(self._intake.sink.child)
        return self._reaper.end_all(grace)

    def export(self) -> Data:
        """Return the adopted children as data, for the next program."""
        return {"spared": list(self._reaper.spared), "strays": self._reaper.strays}

    def resume(self, left: Data) -> None:
        """Resume from the state of the previous program."""
        self._reaper.adopt(left["spared"], left["strays"])

    def gone(self, pid: int) -> Remains:
        """Read the rest of an ended worker's output; return its `Remains`."""
        before = self._oom_kills
        lines = self._intake.detach(pid)
        return Remains(lines, self._reaper.peaks.pop(pid, None), is_oom=self.look_for_oom() > before)

    def look_for_oom(self) -> int:
        """Read the kernel's count of OOM kills. Must be called about once a second."""
        self._oom_kills = oom_kills()
        return self._oom_kills

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a child. It has not been reaped, so its pid belongs to no other process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill(self, pid: int) -> None:
        """Kill a child and its process group."""
        signal_group(pid, signal.SIGKILL)

    def print_stacks(self, pid: int) -> bool:
        """Send the signal that prints a worker's stacks, unless it has no handler and would be killed."""
        if not catches(pid, STACKS):
            return False
        self._intake.tap(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACKS)
        return True

    def reopen_log(self) -> str:
        """Reopen the log file; return the reason for a failure, or an empty text."""
        return self._intake.sink.reopen()

    def drop_privileges(self) -> None:
        """Become the daemon's user permanently, after closing descriptors that it must not have."""
        if self._spawner.has_identity:
            self._close_unused()
            self._spawner.drop_privileges()

    def report_ready(self, addresses: Iterable[str]) -> None:
        """Report that the daemon is ready."""
        where = ", ".join(addresses)
        line = f"{self._plan.name} is ready: pid {os.getpid()}" + (f", listening on {where}" if where else "")
        self.log("INFO", line)
        self._state_line = line
        self._notifier.send({"READY": "1", "MAINPID": str(os.getpid()), "STATUS": self._status()})
        if self._reporter is not None:
            self._reporter.ready(line)

    def report_failed(self, lines: Iterable[str], status: int, errno: int) -> None:
        """Report why the start has failed: as plain text to a person, and in the log."""
        if errno:
            self._notifier.send({"ERRNO": str(errno)})
        lines = list(lines)
        text = "\n".join(lines)
        if self._plan.log.kind != "stderr":
            self.log("CRITICAL", "\n".join(line.removeprefix("tamed: ") for line in lines))
        if self._reporter is not None:
            self._reporter.failed(text, status)
        elif self._plan.log.kind != "journal" or not is_journal(self._spawner.environ):
            print_error(text)  # otherwise the journal would contain it twice

    def change_log(self, plan: LogPlan) -> None:
        """Open the new log, and then close the old one."""
        if plan != self._log_plan:
            self._intake.change_sink(open_sink(plan, self._plan.name, None), layout_of(plan.layout))
            self._log_plan = plan
            path, is_temporary = events_path(self._plan, plan), plan.kind != "file"
            if trouble := self._events.open(path, is_temporary=is_temporary):
                self.log("WARNING", trouble)

    def enter(self, directory: str) -> None:
        """Leave the folder of the previous generation, which may be removed soon."""
        with contextlib.suppress(OSError):
            os.chdir(directory)

    def notify_reloading(self) -> None:
        """Notify the service manager that a reload has begun."""
        self._notifier.reloading("reloading")

    def notify_reloaded(self, line: str) -> None:
        """Notify the service manager that the daemon serves, in the new or the old generation."""
        self._state_line = line
        self._notifier.ready(self._status())

    def notify_troubles(self, troubles: Sequence[str]) -> None:
        """Notify the service manager of the current troubles, beside the daemon's state."""
        self._troubles = list(troubles)
        self._notifier.status(self._status())

    def _status(self) -> str:
        return "; ".join([each for each in (self._state_line, *self._troubles) if each])

    def notify_status(self, text: str) -> None:
        """Notify the service manager of the daemon's state, in one line."""
        self._state_line = text
        self._notifier.status(self._status())

    def notify_stopping(self, text: str) -> None:
        """Notify the service manager that the daemon stops, and what it waits for or why it failed."""
        self._state_line = text
        self._notifier.stopping(text)

    def notify_stuck(self, why: str) -> None:
        """Trigger the service manager's watchdog, so that it kills the daemon."""
        self._notifier.send({"WATCHDOG": "trigger", "STATUS": why})

    def notify_end(self, status: int) -> None:
        """Notify the service manager of the exit status."""
        self._notifier.send({"EXIT_STATUS": str(status)})


class _PreparedFork(ChildPipes):
    """The pipes and the directory of a child to come; `PreparedFork` documents its methods."""

    def __init__(self, intake: Intake, directory: str) -> None:
        super().__init__(directory)
        self._intake = intake

    def adopt(self, pid: int) -> None:
        """Read the pipes of a child that a template claims to have forked."""
        if self._intake.has(pid):
            raise OSError(errno.EEXIST, f"process {pid} was not forked just now")
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises ChildProcessError
        self.attach(pid)

    def attach(self, pid: int) -> None:
        """Read the pipes of a child."""
        self._intake.attach(pid, *self.take_ours())


def print_error(text: str, descriptor: int = 2) -> None:
    """Write lines to standard error. A closed terminal or a full disk there must not stop the daemon."""
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{shown(text)}\n".encode(errors="backslashreplace"))
