"""How many files a process may have open at once."""

import resource
from pathlib import Path

from tamed.errors import PermissionRefused

__all__ = ["limit_open_files"]

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
