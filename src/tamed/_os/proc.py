"""Information about processes from ``/proc``: proc(5). Without it, as in a chroot, no process is found."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ProcessEntry",
    "catches",
    "children_of",
    "descendants_of",
    "members_of",
    "memory_of",
    "process_begin",
    "show_program",
    "show_words",
    "start_time_of",
    "usage_of",
    "user_of",
]

_PROC = Path("/proc")
_ARG_START = 45  # index in `_stat_of` of the address of the command's words


class ProcessEntry:
    """A process: its parent and process group, and its start time, which with the pid identifies it.

    ``is_over`` is whether it has ended and waits for its parent to reap it.
    """

    def __init__(self, pid: int, parent: int, group: int, is_over: bool, started: int) -> None:
        self.pid = pid
        self.parent = parent
        self.group = group
        self.is_over = is_over
        self.started = started

    @property
    def is_there(self) -> bool:
        """Whether it still exists: another process may have reused the pid."""
        now = _read(str(self.pid))
        return now is not None and now.started == self.started and not now.is_over


def children_of(parent: int) -> list[ProcessEntry]:
    """Return the children of a process, adopted ones too."""
    return [each for each in _all_processes() if each.parent == parent]


def descendants_of(ancestor: int) -> list[ProcessEntry]:
    """Return the children of a process, their children, and so on."""
    below: dict[int, list[ProcessEntry]] = {}
    for each in _all_processes():
        below.setdefault(each.parent, []).append(each)
    found = below.get(ancestor, [])
    for each in found:  # the list grows during the loop
        found += below.get(each.pid, [])
    return found


def members_of(group: int) -> list[ProcessEntry]:
    """Return the processes of a process group."""
    return [each for each in _all_processes() if each.group == group]


def start_time_of(pid: int) -> int | None:
    """Return the start time of a process, in clock ticks since boot; None if there is no such process."""
    found = _read(str(pid))
    return None if found is None else found.started


def process_begin(pid: int) -> float:
    """Return when a process began, in seconds since the epoch; now, if that is unknown."""
    ticks = start_time_of(pid)
    if ticks is None:  # no /proc
        return time.time()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def user_of(pid: int) -> int | None:
    """Return the real user of a process; None if there is no such process."""
    found = [int(line.split()[1]) for line in _status_of(pid, _PROC) if line.startswith(b"Uid:")]
    return found[0] if found else None


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal: without one, a signal may end it."""
    masks = [line.split()[1] for line in _status_of(pid, _PROC) if line.startswith(b"SigCgt:")]
    return bool(masks) and bool(int(masks[0], 16) >> (number - 1) & 1)


def memory_of(pid: int, proc: Path = _PROC) -> int | None:
    """Return the bytes that a process has allocated, in memory or swapped out; None if it does not exist."""
    lines = _status_of(pid, proc)
    found = [int(line.split()[1]) for line in lines if line.startswith((b"RssAnon:", b"VmSwap:"))]
    return 1024 * sum(found) if found else None


def usage_of(pid: int) -> tuple[int, float] | tuple[None, None]:
    """Return the resident memory of a process in bytes and its CPU time in seconds, if it exists."""
    try:
        resident = int((_PROC / str(pid) / "statm").read_bytes().split()[1])
        fields = _stat_of(str(pid))
    except (OSError, IndexError):
        return None, None
    ticks = int(fields[11]) + int(fields[12])
    return resident * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK")


def show_words(words: Sequence[str], count: int) -> None:
    """Make process listings show these words instead of the last ``count`` words of this command.

    If they are longer, or without ``/proc``, nothing changes there. ``sys.orig_argv`` has them in any case.
    """
    try:
        command = (_PROC / "self" / "cmdline").read_bytes()
        begin = int(_stat_of("self")[_ARG_START])
        shown = command.rstrip(b"\0")  # what was shown before may have been shorter than the command
        former = b"\0".join(map(os.fsencode, sys.orig_argv[-count:])).rstrip(b"\0")
        latter = b"\0".join(map(os.fsencode, words)) + b"\0"
        start = len(shown) - len(former)
        if len(latter) <= len(command) - start and shown.endswith(former):
            with open("/proc/self/mem", "r+b", buffering=0) as memory:  # noqa: PTH123 - as below
                memory.seek(begin + start)
                memory.write(latter.ljust(len(command) - start, b"\0"))
    except OSError:  # no /proc, or no permission to write it
        return
    finally:
        sys.orig_argv[-count:] = words


def show_program(name: str) -> None:
    """Make process listings show this name, of up to 15 bytes, for the program of this process (proc(5))."""
    try:
        (_PROC / "self" / "comm").write_text(name)
    except OSError:  # no /proc
        return


def _all_processes() -> list[ProcessEntry]:
    try:
        names = os.listdir(_PROC)  # noqa: PTH208 - a thousand Paths are slow
    except OSError:
        return []
    return [found for name in names if name.isdigit() and (found := _read(name)) is not None]


def _read(name: str) -> ProcessEntry | None:
    try:
        fields = _stat_of(name)
    except OSError:  # it has ended
        return None
    is_over = fields[0] in (b"Z", b"X")
    return ProcessEntry(int(name), int(fields[1]), int(fields[2]), is_over, int(fields[19]))


def _stat_of(name: str) -> list[bytes]:
    """Return the fields of proc_pid_stat(5) after the program's name, which may contain any character."""
    with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - a thousand Paths are slow
        return file.read().rpartition(b")")[2].split()


def _status_of(pid: int, proc: Path) -> list[bytes]:
    try:
        return (proc / str(pid) / "status").read_bytes().splitlines()
    except OSError:  # it has ended, or no descriptor is free
        return []
