"""Which processes there are below another one, as the kernel lists them (proc_pid_stat(5))."""

import os
from typing import NamedTuple

__all__ = ["Relative", "beginning_of", "children_of", "descendants_of", "members_of", "user_of"]


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
