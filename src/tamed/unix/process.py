"""A process that is held by a pidfd, so that no stranger is ever signalled in its place.

A pid is a number that the kernel gives to somebody else when its process is gone; a pidfd (pidfd_open(2),
Linux 5.3) goes on meaning the same process. What remains is the moment between learning a number and
opening it, and :meth:`ProcessHandle.found_by` closes that.
"""

import os
import resource
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from tamed.errors import PermissionRefused, SystemRefused, from_os_error

__all__ = [
    "ProcessHandle",
    "Relative",
    "beginning_of",
    "children_of",
    "descendants_of",
    "end_by_signal",
    "limit_open_files",
    "members_of",
    "user_of",
]


_ATTEMPTS = 10


def end_by_signal(number: int) -> int:
    """End this process by a signal, so that whoever waits for it sees the truth.

    It returns only in a process that no signal of its own ends, as pid 1: with the status to exit with then,
    which is what a shell says of a process that a signal ended.
    """
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    return 128 + number


class ProcessHandle:
    """One process, until it is closed; a context manager."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    @classmethod
    def open(cls, pid: int) -> Self | None:
        """Take hold of whatever process has this pid now; None if there is none.

        Raises SystemRefused if the kernel has no pidfds or no descriptor is left.
        """
        try:
            return cls(pid, os.pidfd_open(pid))
        except ProcessLookupError:
            return None
        except OSError as error:
            raise from_os_error(f"cannot hold process {pid}", error) from error

    @classmethod
    def found_by(cls, find: Callable[[], int | None]) -> Self | None:
        """Take hold of the process that ``find`` names, and only of that one; None when it names none.

        ``find`` is asked again once the process is held. If it still gives the same pid, the process that
        it means was alive the whole time and had that pid, so it is the one that is held. With the holder
        of a pid file::

            with ProcessHandle.found_by(lambda: holder(path)) as process: ...

        Raises SystemRefused if what ``find`` says cannot be held.
        """
        for _ in range(_ATTEMPTS):
            pid = find()
            if pid is None:
                return None
            handle = cls.open(pid)
            if handle is None:
                continue
            if find() == pid:
                return handle
            handle.close()
        raise SystemRefused("cannot find the process", "it was another one at each try")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the pidfd. It is readable, for ``poll(2)``, once the process has ended."""
        return self._descriptor

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; tell whether the process was there to get it. A zombie counts as there.

        Raises PermissionRefused if this user may not signal it.
        """
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        except PermissionError as error:
            raise PermissionRefused(
                f"cannot send {number.name} to process {self.pid}",
                error.strerror or "",
                "do it as its user, or as root",
            ) from error
        return True

    def wait_gone(self, timeout: float | None) -> bool:
        """Wait up to ``timeout`` seconds (None: for ever) until it has ended; tell whether it has.

        A process that ended and was not yet reaped by its parent has ended.
        """
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(timeout, 0.0) * 1000))

    def close(self) -> None:
        """Let go of the process, which goes on as it is. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Relative(NamedTuple):
    """A process: its parent, its process group, and when it was started, by which it is known.

    ``is_over`` says that it has ended, and waits for its parent to hear of it.
    """

    pid: int
    parent: int
    group: int
    is_over: bool
    started: int

    @property
    def is_there(self) -> bool:
        """Whether it still runs: its number may be another's by now."""
        now = _look(str(self.pid))
        return now is not None and now.started == self.started and not now.is_over


def children_of(parent: int) -> list[Relative]:
    """Return the children of a process, adopted ones too; none where there is no ``/proc``."""
    return [each for each in _everybody() if each.parent == parent]


def descendants_of(ancestor: int) -> list[Relative]:
    """Return the children of a process, their children, and so on."""
    below: dict[int, list[Relative]] = {}
    for each in _everybody():
        below.setdefault(each.parent, []).append(each)
    found = below.get(ancestor, [])
    for each in found:  # which grows meanwhile
        found += below.get(each.pid, [])
    return found


def beginning_of(pid: int) -> int | None:
    """Return when a process was started, in ticks since the system was; None if there is no such process."""
    found = _look(str(pid))
    return None if found is None else found.started


def user_of(pid: int) -> int | None:
    """Return the real user of a process; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 - as below
            return int(file.read().partition(b"\nUid:")[2].split()[0])
    except (OSError, IndexError):
        return None


def members_of(group: int) -> list[Relative]:
    """Return the processes of a group."""
    return [each for each in _everybody() if each.group == group]


def _everybody() -> list[Relative]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208 - a thousand Paths are slow
    except OSError:
        return []
    return [found for name in names if name.isdigit() and (found := _look(name)) is not None]


def _look(name: str) -> Relative | None:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - a thousand Paths are slow
            stat = file.read()
    except OSError:  # it is gone
        return None
    fields = stat.rpartition(b")")[2].split()
    is_over = fields[0] in (b"Z", b"X")
    return Relative(int(name), int(fields[1]), int(fields[2]), is_over, int(fields[19]))


_MOST = Path("/proc/sys/fs/nr_open")


def limit_open_files(count: int) -> None:
    """Let this process, and each that it starts, have up to ``count`` open descriptors.

    This is RLIMIT_NOFILE of getrlimit(2). The hard limit is raised when it is lower, which needs root, and
    never lowered. Raises PermissionRefused, which names the limit.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    raised = hard if hard == resource.RLIM_INFINITY else max(hard, count)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, raised))
    except (ValueError, OSError) as error:  # ValueError is how the module says EPERM
        most = f"at most {hard} are allowed here" if count > hard >= 0 else str(error)
        raise PermissionRefused(
            f"cannot have {count} open files",
            most,
            f"name fewer, or raise the hard limit (kernel: {_most()})",
        ) from error


def _most() -> str:
    try:
        return f"{_MOST} is {_MOST.read_text().strip()}"
    except OSError:
        return "no limit known"
