"""What the machine has, and how much of it a daemon may take.

Each worker is a process of its own, with an interpreter and an application in its memory. So a number that
was mistyped can take a machine down, and one above 32 for each CPU has to be meant. Above the bound that
nothing lifts, the supervisor itself would run out of descriptors.
"""

import os
import resource
from pathlib import Path
from typing import Final

from tamed.errors import PermissionRefused, UsageError

__all__ = ["check_workers", "limit_open_files", "most_workers", "sysctl", "usable_cpus"]

_MOST_PER_CPU: Final = 32
_MOST: Final = 4096


def usable_cpus() -> int:
    """Return how many CPUs this process may use: sched_getaffinity(2)."""
    return len(os.sched_getaffinity(0))


def most_workers(cpus: int, *, yes: bool = False) -> int:
    """Return how many workers there may be; ``yes`` says that a very large number is meant."""
    return _MOST if yes else min(_MOST, _MOST_PER_CPU * cpus)


def check_workers(count: int, *, yes: bool) -> None:
    """Raise UsageError for more workers than there may be, which says how many there may be."""
    most = most_workers(usable_cpus(), yes=yes)
    if count > most:
        why = f"that is more than {most}" + ("" if yes else f", {_MOST_PER_CPU} for each CPU")
        asked = count if count <= _MOST else f"more than {_MOST}"
        raise UsageError(f"{asked} workers", why, "" if yes else "give --yes if it is meant")


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
        kernel = sysctl("fs.nr_open")
        known = "no limit known" if kernel is None else f"/proc/sys/fs/nr_open is {kernel}"
        raise PermissionRefused(
            f"cannot have {count} open files", most, f"name fewer, or raise the hard limit (kernel: {known})"
        ) from error


def sysctl(name: str, root: Path = Path("/proc/sys")) -> int | None:
    """Return a number such as ``net.core.somaxconn``; None where there is none, as in some sandboxes.

    The ``net`` ones are those of this process's network namespace.
    """
    try:
        return int(root.joinpath(*name.split(".")).read_bytes())
    except (OSError, ValueError):
        return None
