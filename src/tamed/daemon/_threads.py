"""Refusing what a process can only do while it has one thread."""

import sys
import time
from pathlib import Path

from tamed.errors import SystemRefused

__all__ = ["require_single_thread", "threads"]

_TASKS = Path("/proc/self/task")
_ENDING = 2.0  # seconds
_PAUSE = 0.001


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

    One that is ending is waited for: `Thread.join` returns some time before the kernel is done with it. A
    fork takes only the calling thread along and leaves the others' locks locked; capabilities and
    ``no_new_privs`` belong to the thread that sets them (capabilities(7), prctl(2)).
    """
    deadline = time.monotonic() + _ENDING
    while (count := threads()) > 1 and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    if count > 1:
        raise SystemRefused(what, f"this process has {count} threads", "do it before anything starts one")
