"""The resources of the machine and of this process's control groups, and the limits for a daemon.

Each worker is a process with an interpreter and an application in its memory. A typing error in their number
can bring a machine down, so more than 32 for each CPU need a confirmation. Above the absolute maximum the
supervisor itself would run out of descriptors.

The limits of a control group (cgroups(7)) also apply to the groups below it, so the lowest limit on the way
up counts. In a container its own group is often mounted as the root, while the path in ``/proc/self/cgroup``
may be that of the host: so each existing folder on the way is read, and missing ones are skipped.
"""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path, PurePosixPath

from tamed.errors import PermissionRefused, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

__all__ = [
    "allowed_cpus",
    "allowed_memory",
    "check_workers",
    "limit_open_files",
    "most_workers",
    "oom_kills",
    "sysctl",
    "usable_cpus",
]

_MOST_PER_CPU: Final = 32
_MOST: Final = 4096
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 60  # version 1 writes a number for "unlimited": 2**63 rounded down to a page


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use.

    Those are the CPUs of sched_getaffinity(2), or fewer if a control group limits the CPU time.
    """
    cpus = len(os.sched_getaffinity(0))
    return min(cpus, allowed_cpus() or cpus)


def most_workers(cpus: int, *, yes: bool = False) -> int:
    """Return the maximum number of workers; ``yes`` confirms a very large number."""
    return _MOST if yes else min(_MOST, _MOST_PER_CPU * cpus)


def check_workers(count: int, *, yes: bool) -> None:
    """Raise UsageError, with the maximum, for too many workers."""
    most = most_workers(usable_cpus(), yes=yes)
    if count > most:
        why = f"that is more than {most}" + ("" if yes else f", {_MOST_PER_CPU} for each CPU")
        asked = count if count <= _MOST else f"more than {_MOST}"
        raise UsageError(f"{asked} workers", why, "" if yes else "add --yes to confirm")


def limit_open_files(count: int) -> None:
    """Allow this process and its children up to ``count`` open descriptors: RLIMIT_NOFILE of getrlimit(2).

    The hard limit is raised if it is lower, which needs root, and never lowered. Raises PermissionRefused,
    with the limit.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    raised = hard if hard == resource.RLIM_INFINITY else max(hard, count)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, raised))
    except (ValueError, OSError) as error:  # the module raises ValueError for EPERM
        most = f"at most {hard} are allowed here" if count > hard >= 0 else str(error)
        kernel = sysctl("fs.nr_open")
        known = "no limit known" if kernel is None else f"/proc/sys/fs/nr_open is {kernel}"
        raise PermissionRefused(
            f"cannot have {count} open files", most, f"use fewer, or raise the hard limit (kernel: {known})"
        ) from error


def sysctl(name: str, root: Path = Path("/proc/sys")) -> int | None:
    """Return a kernel parameter such as ``net.core.somaxconn``; None if it is missing, as in some sandboxes.

    The ``net`` parameters are those of this process's network namespace.
    """
    try:
        return int(root.joinpath(*name.split(".")).read_bytes())
    except (OSError, ValueError):
        return None


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
