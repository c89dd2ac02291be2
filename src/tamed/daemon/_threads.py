"""Refusing what a process can only do while it has one thread."""

import sys
from pathlib import Path

from tamed.errors import SystemRefused

__all__ = ["require_single_thread", "threads"]

_TASKS = Path("/proc/self/task")


def threads(tasks: Path = _TASKS) -> int:
    """Return how many threads this process has: all of them on Linux, elsewhere those that Python knows.

    ``tasks`` is where the kernel lists them.
    """
    try:
        return sum(1 for _ in tasks.iterdir())
    except OSError:
        threading = sys.modules.get("threading")
        count: int = threading.active_count() if threading else 1
        return count


def require_single_thread(what: str) -> None:
    """Raise SystemRefused, beginning with ``what``, if this process has more than one thread.

    A fork takes only the calling thread along and leaves the others' locks locked; capabilities and
    ``no_new_privs`` belong to the thread that sets them (capabilities(7), prctl(2)).
    """
    count = threads()
    if count > 1:
        raise SystemRefused(what, f"this process has {count} threads", "do it before anything starts one")
