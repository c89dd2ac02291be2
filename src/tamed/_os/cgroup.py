"""Limits and OOM kills of this process's control groups: cgroups(7).

The limits of a group also apply to the groups below it, so the lowest limit on the way up counts. In a
container its own group is often mounted as the root, while the path in ``/proc/self/cgroup`` may be that of
the host: so each existing folder on the way is read, and missing ones are skipped.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["allowed_cpus", "allowed_memory", "oom_kills"]

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 60  # version 1 writes a number for "unlimited": 2**63 rounded down to a page


def allowed_cpus(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Return the number of CPUs whose time the control groups allow, rounded up; None without a limit.

    That is the quota of ``cpu.max`` in cgroup-v2.rst, or of ``cpu.cfs_quota_us`` in version 1.
    """
    quotas = []
    for folder in _folders("cpu", proc, cgroups):
        words = _text(folder / "cpu.max").split() or [
            _text(folder / "cpu.cfs_quota_us").strip(),
            _text(folder / "cpu.cfs_period_us").strip(),
        ]
        if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):  # not "max", nor -1
            quotas.append(int(words[0]) / int(words[1]))
    return max(1, math.ceil(min(quotas))) if quotas else None


def allowed_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return the bytes of memory that the control groups allow; without a limit, those of the machine.

    That is the least of ``memory.max`` and ``memory.high`` in cgroup-v2.rst, or ``memory.limit_in_bytes`` in
    version 1.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for folder in _folders("memory", proc, cgroups):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = _text(folder / name).strip()
            if text.isdigit() and 0 < int(text) < _UNLIMITED:
                limits.append(int(text))
    return min(limits)


def oom_kills(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return the number of processes that the OOM killer has killed in this process's cgroup.

    The kernel counts before it sends the signal (cgroup-v2.rst, memory.events). Without a version 2 cgroup
    with a memory controller it is the number of the whole system (/proc/vmstat), or 0 without that.
    """
    of_cgroup = _counted(cgroups / _own_path("", proc).lstrip("/") / "memory.events")
    return _counted(proc / "vmstat") or 0 if of_cgroup is None else of_cgroup


def _folders(controller: str, proc: Path, cgroups: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups, the innermost first, in both versions."""
    for root, path in ((cgroups, _own_path("", proc)), (cgroups / controller, _own_path(controller, proc))):
        for each in (PurePosixPath(path), *PurePosixPath(path).parents):
            yield root / str(each).lstrip("/")


def _own_path(controller: str, proc: Path) -> str:
    """Return the path of this process's group; version 2 has one unnamed hierarchy for all controllers."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            return path
    return "/"


def _counted(file: Path) -> int | None:
    for line in _text(file).splitlines():
        name, _, number = line.partition(" ")
        if name == "oom_kill" and number.isdigit():
            return int(number)
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="surrogateescape")
    except OSError:
        return ""
