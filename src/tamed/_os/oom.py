"""How many processes the kernel's OOM killer has killed: in this cgroup, or in the whole system."""

import os
from pathlib import Path

__all__ = ["oom_kills"]

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def oom_kills(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return how many processes the OOM killer has killed in this process's cgroup.

    The kernel counts before it sends the signal (cgroup-v2.rst, memory.events). Without a cgroup of version 2
    with a memory controller it is the number of the whole system (/proc/vmstat), and 0 if that is not there
    either.
    """
    of_cgroup = _counted(cgroups / _own_cgroup(proc) / "memory.events")
    return _counted(proc / "vmstat") or 0 if of_cgroup is None else of_cgroup


def _own_cgroup(proc: Path) -> str:
    """Return the path of this process's cgroup below the mount point: cgroups(7)."""
    for line in _lines(proc / "self" / "cgroup"):
        if line.startswith(b"0::/"):
            return os.fsdecode(line.removeprefix(b"0::/"))
    return ""


def _counted(file: Path) -> int | None:
    for line in _lines(file):
        name, _, number = line.partition(b" ")
        if name == b"oom_kill" and number.isdigit():
            return int(number)
    return None


def _lines(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().splitlines()
    except OSError:
        return []
