"""What ``/proc`` tells of processes: proc(5). Where there is none, as in a chroot, it tells of nobody."""

import os
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Relative",
    "beginning_of",
    "children_of",
    "descendants_of",
    "members_of",
    "memory_of",
    "usage_of",
    "user_of",
]

_PROC = Path("/proc")


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
    """Return the children of a process, adopted ones too."""
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


def members_of(group: int) -> list[Relative]:
    """Return the processes of a process group."""
    return [each for each in _everybody() if each.group == group]


def beginning_of(pid: int) -> int | None:
    """Return when a process was started, in ticks since the system was; None if there is no such process."""
    found = _look(str(pid))
    return None if found is None else found.started


def user_of(pid: int) -> int | None:
    """Return the real user of a process; None if there is no such process."""
    found = [int(line.split()[1]) for line in _status_of(pid, _PROC) if line.startswith(b"Uid:")]
    return found[0] if found else None


def memory_of(pid: int, proc: Path = _PROC) -> int | None:
    """Return how many bytes a process has allocated, in memory or swapped out; None if it is not there."""
    lines = _status_of(pid, proc)
    found = [int(line.split()[1]) for line in lines if line.startswith((b"RssAnon:", b"VmSwap:"))]
    return 1024 * sum(found) if found else None


def usage_of(pid: int) -> tuple[int, float] | tuple[None, None]:
    """Return the resident memory of a process in bytes, and the seconds of CPU it has had, if it is there."""
    try:
        resident = int((_PROC / str(pid) / "statm").read_bytes().split()[1])
        fields = _stat_of(str(pid))
    except (OSError, IndexError):
        return None, None
    ticks = int(fields[11]) + int(fields[12])
    return resident * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK")


def _everybody() -> list[Relative]:
    try:
        names = os.listdir(_PROC)  # noqa: PTH208 - a thousand Paths are slow
    except OSError:
        return []
    return [found for name in names if name.isdigit() and (found := _look(name)) is not None]


def _look(name: str) -> Relative | None:
    try:
        fields = _stat_of(name)
    except OSError:  # it is gone
        return None
    is_over = fields[0] in (b"Z", b"X")
    return Relative(int(name), int(fields[1]), int(fields[2]), is_over, int(fields[19]))


def _stat_of(name: str) -> list[bytes]:
    """Return the fields of proc_pid_stat(5) behind the program's name, which may have anything in it."""
    with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - a thousand Paths are slow
        return file.read().rpartition(b")")[2].split()


def _status_of(pid: int, proc: Path) -> list[bytes]:
    try:
        return (proc / str(pid) / "status").read_bytes().splitlines()
    except OSError:  # it has ended, or there is no descriptor to read it
        return []
