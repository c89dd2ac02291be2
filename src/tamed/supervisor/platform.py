"""The interface between the supervisor and the operating system, and its implementation.

Tests have an implementation of their own.
"""

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tamed._os.descriptors import has_lost_terminal
from tamed._os.identity import Identity
from tamed._os.limits import oom_kills, usable_cpus
from tamed._os.proc import catches, children_of, memory_of
from tamed._os.text import shown
from tamed.ipc.channel import STACKS
from tamed.ipc.handoff import Data
from tamed.log.layout import layout_of
from tamed.log.plan import LogPlan, is_journal
from tamed.log.sink import open_sink
from tamed.supervisor.intake import Intake
from tamed.supervisor.loop import Reactor
from tamed.supervisor.plan import Plan
from tamed.supervisor.records import EventLog, events_path
from tamed.supervisor.spawner import ChildPipes, Spawner
from tamed.unix.notify import Notifier
from tamed.unix.reaper import Reaper, signal_group
from tamed.unix.report import Reporter

__all__ = ["Platform", "PosixPlatform", "PreparedFork", "Remains", "print_error"]


class Remains(NamedTuple):
    """The last output of an ended child, and the reason for its end as far as known.

    ``lines`` are the last lines that it logged or printed. ``memory`` is its peak resident memory, in bytes,
    None if unknown. ``is_oom`` means that the kernel's OOM killer killed a process since the last look.
    """

    lines: list[str] = []  # noqa: RUF012 - never changed
    memory: int | None = None
    is_oom: bool = False


class PreparedFork(Protocol):
    """The resources of a process that a template will fork."""

    @property
    def theirs(self) -> Sequence[int]:
        """The descriptors to send: the writing ends of the pipes for records and output, the directory."""

    def close_theirs(self) -> None:
        """Close these descriptors: copies were sent."""

    def adopt(self, pid: int) -> None:
        """Connect the process's pipes to the log. Raises OSError if it is not a new child."""

    def close(self) -> None:
        """Close everything, because the process will not exist."""


class Platform(Protocol):
    """The event loop, processes, signals, the log, and the reports of the supervisor.

    ``notifier`` notifies the service manager.
    """

    reactor: Reactor
    notifier: Notifier

    def spawn(self, channel: int, module: str, *words: str, plan: Plan | None = None) -> int:
        """Run a module of Tamed in a child with a copy of this descriptor; connect its output to the log.

        Return its pid. ``words`` are shown in process listings. A child of a ``plan`` runs in the plan's
        directory, with its interpreter for workers. Raises OSError if the system cannot start a process, or
        the directory does not exist.
        """

    def prepare_fork(self, plan: Plan) -> PreparedFork:
        """Prepare the pipes and the directory for a child of a plan. Raises as `spawn` does."""

    def identify(self, pid: int, worker: int) -> None:
        """Use the worker's number for this pid in the log."""

    def ended(self) -> Iterator[tuple[int, int]]:
        """Reap every child that has ended; yield its pid and its exit code, negative for a signal.

        The rest of its process group has ended before.
        """

    @property
    def due(self) -> float | None:
        """The seconds until `ended` must be called even without a signal; None for no limit."""

    def has_lost_terminal(self) -> bool:
        """Return whether this process has lost its terminal."""

    def settle(self) -> None:
        """Spare the processes that earlier workers left running: they belong to no later worker."""

    def end_all(self, grace: float) -> bool:
        """End all remaining descendants within ``grace`` seconds; return whether none is left.

        Must be called again after each end of a child, until it returns True.
        """

    def gone(self, pid: int) -> Remains:
        """Read the rest of an ended worker's output; return its `Remains`."""

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a child that has not been reaped."""

    def kill(self, pid: int) -> None:
        """Kill a child that has not been reaped, with its process group."""

    def memory(self, pid: int) -> int | None:
        """Return the number of bytes that a child has allocated, None if it is unknown."""

    def print_stacks(self, pid: int) -> bool:
        """Make a worker print the stacks of its threads; return False if it cannot."""

    def printed_stacks(self, pid: int) -> list[str]:
        """Return what a worker has printed since `print_stacks`."""

    def log(self, level: str, text: str) -> None:
        """Write a line to the log."""

    def record(self, kind: str, text: str, /, **facts: Any) -> None:
        """Record an event, see `EventLog`."""

    def reopen_log(self) -> str:
        """Reopen the log file, after it was renamed. Return the reason for a failure, or an empty text."""

    def drop_privileges(self) -> None:
        """Become the daemon's user permanently. Raises TamedError if that is impossible."""

    def report_ready(self, addresses: Iterable[str]) -> None:
        """Report to the command that waits, and notify the service manager, that the daemon serves."""

    def report_failed(self, lines: Iterable[str], status: int, errno: int) -> None:
        """Report to the command that waits, and notify the service manager, why the start has failed.

        ``errno`` is the errno of the cause, 0 for none.
        """

    def change_log(self, plan: LogPlan) -> None:
        """Write the log to another place, or in another layout.

        Raises TamedError if that is impossible; the log is then unchanged.
        """

    def enter(self, directory: str) -> None:
        """Enter another folder if possible: that of the previous generation may be removed soon."""

    @property
    def cpus(self) -> int:
        """The number of CPUs that the daemon may use."""


class PosixPlatform(Platform):
    """The platform of a real supervisor.

    ``reporter`` is None in the foreground, where errors go to standard error. ``close_unused`` is called just
    before privileges are dropped, and ``on_unawaited`` if the command that waits for a report has ended.
    """

    def __init__(
        self,
        plan: Plan,
        reactor: Reactor,
        intake: Intake,
        *,
        identity: Identity | None,
        reporter: Reporter | None,
        environ: Mapping[str, str],
        events: EventLog,
        close_unused: Callable[[], None],
    ) -> None:
        self.reactor = reactor
        self.notifier = Notifier.from_environ(environ)
        self._events = events
        self._oom_kills = oom_kills()
        self._close_unused = close_unused
        self._plan = plan
        self._intake = intake
        self._log_plan = plan.log
        self._spawner = Spawner(plan, identity, environ)
        self._reporter = reporter
        self.on_unawaited: Callable[[], object] = lambda: None
        if reporter is not None:
            self.reactor.watch(reporter, self._lose_command)
        spared = [each.pid for each in children_of(os.getpid()) if not intake.has(each.pid)]
        self._reaper = Reaper(intake.has, self.log, plan.stop_timeout, spared)

    @property
    def cpus(self) -> int:
        return usable_cpus()

    def has_lost_terminal(self) -> bool:
        return has_lost_terminal()

    def memory(self, pid: int) -> int | None:
        return memory_of(pid)

    # Children.

    def spawn(self, channel: int, module: str, *words: str, plan: Plan | None = None) -> int:
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
        return _PreparedFork(self._intake, plan.directory)

    def ended(self) -> Iterator[tuple[int, int]]:
        self._reaper.spared.add(self._intake.sink.child)  # a compressor of the log
        for pid, status in self._reaper.ended():
            if not self._intake.sink.child_ended(pid, status):
                yield pid, os.waitstatus_to_exitcode(status)

    @property
    def due(self) -> float | None:
        return self._reaper.due

    def settle(self) -> None:
        self._reaper.spared.add(self._intake.sink.child)
        self._reaper.settle()

    def end_all(self, grace: float) -> bool:
        self._reaper.spared.add(self._intake.sink.child)
        return self._reaper.end_all(grace)

    def export(self) -> Data:
        """Return the adopted children as data, for the next program."""
        return {"spared": list(self._reaper.spared), "strays": self._reaper.strays}

    def resume(self, left: Data) -> None:
        """Resume from the state of the previous program."""
        self._reaper.adopt(left["spared"], left["strays"])

    def gone(self, pid: int) -> Remains:
        before = self._oom_kills
        lines = self._intake.detach(pid)
        return Remains(lines, self._reaper.peaks.pop(pid, None), is_oom=self.look_for_oom() > before)

    def look_for_oom(self) -> int:
        """Read the kernel's count of OOM kills. Must be called about once a second."""
        self._oom_kills = oom_kills()
        return self._oom_kills

    def signal(self, pid: int, number: signal.Signals) -> None:
        # It has not been reaped, so its pid belongs to no other process.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill(self, pid: int) -> None:
        signal_group(pid, signal.SIGKILL)

    def print_stacks(self, pid: int) -> bool:
        if not catches(pid, STACKS):  # without a handler, the signal would kill it
            return False
        self._intake.tap(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACKS)
        return True

    def printed_stacks(self, pid: int) -> list[str]:
        return self._intake.untap(pid)

    # The log, and reports.

    def log(self, level: str, text: str) -> None:
        self._intake.log(level, text)

    def identify(self, pid: int, worker: int) -> None:
        self._intake.identify(pid, worker)

    def record(self, kind: str, text: str, /, **facts: Any) -> None:
        self._events.add(kind, text, **facts)

    def reopen_log(self) -> str:
        return self._intake.sink.reopen()

    def change_log(self, plan: LogPlan) -> None:
        if plan != self._log_plan:
            self._intake.change_sink(open_sink(plan, self._plan.name, None), layout_of(plan.layout))
            self._log_plan = plan
            path, is_temporary = events_path(self._plan, plan), plan.kind != "file"
            if trouble := self._events.open(path, is_temporary=is_temporary):
                self.log("WARNING", trouble)

    def report_ready(self, addresses: Iterable[str]) -> None:
        where = ", ".join(addresses)
        line = f"{self._plan.name} is ready: pid {os.getpid()}" + (f", listening on {where}" if where else "")
        self.log("INFO", line)
        self.notifier.ready(line, os.getpid())
        if (reporter := self._take_reporter()) is not None and not reporter.ready(line):
            self.reactor.later(0.0, self.on_unawaited)

    def report_failed(self, lines: Iterable[str], status: int, errno: int) -> None:
        if errno:
            self.notifier.send({"ERRNO": str(errno)})
        lines = list(lines)
        text = "\n".join(lines)
        if self._plan.log.kind != "stderr":
            self.log("CRITICAL", "\n".join(line.removeprefix("tamed: ") for line in lines))
        if (reporter := self._take_reporter()) is not None:
            reporter.failed(text, status)
        elif self._plan.log.kind != "journal" or not is_journal(self._spawner.environ):
            print_error(text)  # otherwise the journal would contain it twice

    def _take_reporter(self) -> Reporter | None:
        """Return the reporter, for the only report."""
        reporter, self._reporter = self._reporter, None
        if reporter is not None:
            self.reactor.unwatch(reporter)
        return reporter

    def _lose_command(self) -> None:
        """The command was killed, or it would have sent a signal."""
        self._take_reporter()
        self.on_unawaited()

    # This process.

    def drop_privileges(self) -> None:
        if self._spawner.has_identity:
            self._close_unused()
            self._spawner.drop_privileges()

    def enter(self, directory: str) -> None:
        with contextlib.suppress(OSError):
            os.chdir(directory)


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
