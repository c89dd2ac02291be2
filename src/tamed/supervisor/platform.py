"""What a supervisor needs of the world around it, so that a test can hand in a world of its own."""

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from tamed.log.plan import LogPlan
from tamed.supervisor.plan import Plan

__all__ = ["Platform"]


class Platform(Protocol):
    """What the supervisor does to the world around it."""

    def spawn(self, channel: int, module: str, *words: str, plan: Plan | None = None) -> int:
        """Run a module of ours in a child with a copy of this descriptor, connect its output to the log.

        Return its pid. ``words`` are for those who look at processes. A child of a ``plan`` runs in its
        directory, by its interpreter for workers. Raises OSError if the system has no room for one, or there
        is no such directory.
        """

    def fork(self, channel: int, fork: Callable[[int, int, int], int]) -> int:
        """Have a worker forked in the place of running a module; else as `spawn`.

        ``fork`` returns its pid. It is called with what the worker is to have copies of: its channel, and the
        writing ends of the pipes for records and for output.
        """

    def ended(self) -> Iterator[tuple[int, int]]:
        """Reap every child that has ended; yield its pid and its exit code, negative if by a signal.

        What is left of its process group has ended before.
        """

    @property
    def due(self) -> float | None:
        """In how many seconds `ended` is to be asked again though no signal comes; None if never."""

    def settle(self) -> None:
        """Take what workers have let live on so far for no worker's that ends later."""

    def end_all(self, grace: float) -> bool:
        """End what is left of all children and theirs, in so many seconds; tell whether nothing is.

        To be called again, whenever a child has ended, until it is.
        """

    def gone(self, pid: int) -> None:
        """Read what is left of the output of a worker that has ended."""

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a child that has not been reaped."""

    def kill(self, pid: int) -> None:
        """End a child at once that has not been reaped, with what it has started in its process group."""

    def memory(self, pid: int) -> int | None:
        """Return how many bytes a child has allocated, None if that is not known."""

    def log(self, level: str, text: str) -> None:
        """Write a line to the log."""

    def reopen_log(self) -> str:
        """Open the log file anew: somebody has moved it away. Return why that failed, or nothing."""

    def drop_privileges(self) -> None:
        """Become the user that the daemon runs as, for good. Raises TamedError if that cannot be done."""

    def report_ready(self, addresses: Iterable[str]) -> None:
        """Report to the command that waits, and notify the service manager, that the daemon serves."""

    def report_failed(self, lines: Iterable[str], status: int) -> None:
        """Report to the command that waits, and notify the service manager, why it does not."""

    def change_log(self, plan: LogPlan) -> None:
        """Take the log to another place, or there in another way.

        Raises TamedError if that cannot be done; then it stays as it was.
        """

    def enter(self, directory: str) -> None:
        """Work in another directory from now on, if it is there and this user may."""

    def notify_reloading(self) -> None:
        """Notify the service manager that a reload has begun."""

    def notify_reloaded(self, line: str) -> None:
        """Notify the service manager that it has ended, and how."""

    def notify_status(self, text: str) -> None:
        """Notify the service manager in a line how the daemon stands."""

    def notify_stopping(self) -> None:
        """Notify the service manager that the daemon stops."""

    def notify_alive(self) -> None:
        """Notify the service manager that every worker answers."""

    @property
    def alive_interval(self) -> float | None:
        """How often the manager wants to be notified of that, in seconds; None if it does not."""

    @property
    def cpus(self) -> int:
        """How many CPUs the daemon may use."""
