"""How many workers there may be.

Each is a process of its own, with an interpreter and an application in its memory. So a number that was
mistyped can take a machine down, and one above 32 for each CPU has to be meant. Above the bound that nothing
lifts, the supervisor itself would run out of descriptors.
"""

import os
from typing import Final

from tamed.errors import UsageError

__all__ = ["check_workers", "most_workers", "usable_cpus"]

_MOST_PER_CPU: Final = 32
_MOST: Final = 4096


def usable_cpus() -> int:
    """Return how many CPUs this process may use: sched_getaffinity(2)."""
    return len(os.sched_getaffinity(0))


def most_workers(cpus: int, *, yes: bool = False) -> int:
    """Return how many workers there may be; ``yes`` says that a very large number is meant."""
    return _MOST if yes else min(_MOST, _MOST_PER_CPU * cpus)


def check_workers(count: int, *, yes: bool) -> None:
    """Raise UsageError for more workers than there may be, which tells how many there may be."""
    most = most_workers(usable_cpus(), yes=yes)
    if count > most:
        why = f"that is more than {most}" + ("" if yes else f", {_MOST_PER_CPU} for each CPU")
        asked = count if count <= _MOST else f"more than {_MOST}"
        raise UsageError(f"{asked} workers", why, "" if yes else "give --yes if it is meant")
