"""The interface between the supervisor and the operating system; tests implement their own."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from tamed.log.plan import LogPlan
from tamed.supervisor.loop import Reactor
from tamed.supervisor.plan import Plan
from tamed.unix.notify import Notifier

__all__ = ["Platform", "PreparedFork", "Remains"]


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
