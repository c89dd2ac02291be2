"""What a supervisor needs of the world around it, so that a test can hand in a world of its own."""

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from tamed.ipc.channel import Channel
from tamed.ipc.message import InvalidMessage, Message, read_fault, read_number
from tamed.log.plan import LogPlan
from tamed.supervisor.plan import Plan

__all__ = ["Platform", "Template"]


_PATIENCE = 15.0  # seconds for a fork, which takes milliseconds unless the machine is overloaded


class Template:
    """A template process.

    ``loaded`` is called when it can fork, and ``failed`` with the reason and the status if it ends before.
    """

    def __init__(
        self,
        pid: int,
        channel: Channel,
        loaded: Callable[[], object],
        failed: Callable[[list[str], int], object],
    ) -> None:
        self.pid = pid
        self.channel = channel
        self.loaded = loaded
        self.failed = failed
        self.is_loaded = False
        self.fault: tuple[list[str], int] | None = None

    def fork(self, channel: int, records: int, output: int) -> int:
        """Have a worker forked that has copies of these descriptors; return its pid.

        Waits for it, since it takes milliseconds. Raises OSError if the template does not do it.
        """
        self.channel.send({"fork": True}, [channel, records, output])
        deadline = time.monotonic() + _PATIENCE
        while not self.channel.closed and (left := deadline - time.monotonic()) > 0:
            select.select([self.channel], [], [], left)
            try:
                for message, _ in self.channel.receive():
                    if "forked" in message:
                        return _forked(message)
            except InvalidMessage as error:
                raise OSError(errno.EPROTO, f"the template cannot be understood: {error}") from error
        raise OSError(errno.EAGAIN, "the template does not fork")

    def understand(self, message: Message) -> None:
        """Take what it says by itself. Raises InvalidMessage for what it cannot mean."""
        match message:
            case {"loaded": _}:
                self.is_loaded = True
                self.loaded()
            case {"fault": _}:
                self.fault = read_fault(message)
            case {"leaving": _} if not self.is_loaded:
                status = read_number(message, "leaving", most=255)
                told = f"tamed: the application ended while it was loaded, with status {status}"
                self.fault = [told], status


def _forked(message: Message) -> int:
    """Return the pid of a worker that was forked, which must be a child of this process to be its worker."""
    pid = read_number(message, "forked")
    if not pid:
        number = read_number(message, "errno")
        raise OSError(number, os.strerror(number))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises ChildProcessError
    return pid


class Platform(Protocol):
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

    def log(self, level: str, text: str) -> None:
        """Write a line to the log."""

    def reopen_log(self) -> str:
        """Open the log file anew: somebody has moved it away. Return why that failed, or nothing."""

    def drop_privileges(self) -> None:
        """Become the user that the daemon runs as, for good. Raises TamedError if that cannot be done."""

    def report_ready(self, addresses: Iterable[str]) -> None:
        """Tell whoever waits that the daemon serves."""

    def report_failed(self, lines: Iterable[str], status: int) -> None:
        """Tell whoever waits that it does not, and why."""

    def change_log(self, plan: LogPlan) -> None:
        """Take the log to another place, or there in another way.

        Raises TamedError if that cannot be done; then it stays as it was.
        """

    def enter(self, directory: str) -> None:
        """Work in another directory from now on, if it is there and this user may."""

    def notify_reloading(self) -> None:
        """Tell the system's manager that a reload has begun."""

    def notify_reloaded(self, line: str) -> None:
        """Tell the system's manager that it has ended, and how."""

    def notify_status(self, text: str) -> None:
        """Tell the system's manager in a line how the daemon stands."""

    def notify_stopping(self) -> None:
        """Tell the system's manager that the daemon stops."""

    def notify_alive(self) -> None:
        """Tell the system's manager that every worker answers."""

    @property
    def alive_interval(self) -> float | None:
        """How often the manager wants to hear that, in seconds; None if it does not."""

    @property
    def cpus(self) -> int:
        """How many CPUs the daemon may use."""
