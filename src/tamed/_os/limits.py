"""The resources of the machine, and the limits for a daemon.

Each worker is a process with an interpreter and an application in its memory. A typing error in their number
can bring a machine down, so more than 32 for each CPU need a confirmation. Above the absolute maximum the
supervisor itself would run out of descriptors.
"""

import os
import resource
from pathlib import Path
from typing import Final

from tamed._os.cgroup import allowed_cpus
from tamed.errors import PermissionRefused, UsageError

__all__ = ["check_workers", "limit_open_files", "most_workers", "sysctl", "usable_cpus"]

_MOST_PER_CPU: Final = 32
_MOST: Final = 4096


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
