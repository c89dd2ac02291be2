"""What a supervisor needs of the world around it, so that a test can hand in a world of its own."""

import signal
from collections.abc import Iterable, Iterator
from typing import Protocol

from tamed.runner._log_place import LogPlan
from tamed.runner._plan import Plan
from tamed.runner._template import Template

__all__ = ["Station"]


class Station(Protocol):
    """What the supervisor does to the world around it."""

    def spawn(self, channel: int, module: str, *words: str, plan: Plan | None = None) -> int:
        """Run a module of ours in a child with a copy of this descriptor, connect its output to the log.

        Return its pid. ``words`` are for those who look at processes. A child of a ``plan`` runs in its
        directory, by its interpreter for workers. Raises OSError if the system has no room for one, or there
        is no such directory.
        """

    def fork(self, channel: int, template: Template) -> int:
        """Have a worker forked in the place of running a module; else as `spawn`."""

    def ended(self) -> Iterator[tuple[int, int]]:
        """Reap every child that has ended; yield its pid and its exit code, negative if by a signal.

        What is left of its process group has ended before.
        """

    @property
    def due(self) -> float | None:
        """In how many seconds `ended` is to be asked again though no signal tells; None if never."""

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
        """Return how many bytes a child has allocated, None if that cannot be told."""

    def say(self, level: str, text: str) -> None:
        """Write a line to the log."""

    def reopen_log(self) -> str:
        """Open the log file anew: somebody has moved it away. Return why that failed, or nothing."""

    def drop_privileges(self) -> None:
        """Become the user that the daemon runs as, for good. Raises TamedError if that cannot be done."""

    def tell_ready(self, addresses: Iterable[str]) -> None:
        """Tell whoever waits that the daemon serves."""

    def tell_failed(self, lines: Iterable[str], status: int) -> None:
        """Tell whoever waits that it does not, and why."""

    def change_log(self, plan: LogPlan) -> None:
        """Take the log to another place, or there in another way.

        Raises TamedError if that cannot be done; then it stays as it was.
        """

    def enter(self, directory: str) -> None:
        """Work in another directory from now on, if it is there and this user may."""

    def tell_reloading(self) -> None:
        """Tell the system's manager that a reload has begun."""

    def tell_reloaded(self, line: str) -> None:
        """Tell the system's manager that it has ended, and how."""

    def tell_status(self, text: str) -> None:
        """Tell the system's manager in a line how the daemon stands."""

    def tell_stopping(self) -> None:
        """Tell the system's manager that the daemon stops."""

    def tell_alive(self) -> None:
        """Tell the system's manager that every worker answers."""

    @property
    def alive_interval(self) -> float | None:
        """How often the manager wants to hear that, in seconds; None if it does not."""

    @property
    def cpus(self) -> int:
        """How many CPUs the daemon may use."""
