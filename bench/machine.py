"""What the figures were measured on, and whether it was quiet meanwhile."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

__all__ = ["LOAD_CORE", "SERVER_CORE", "Calm", "machine", "on_core", "versions"]

SERVER_CORE = 0
LOAD_CORE = 1

_SPIN = 200_000  # additions: about 5 ms
_SLOWER = 1.15  # than the quickest spin: somebody else had the core, or its cache, or its clock was lowered
_PACKAGES = ("tamed", "uvloop", "Twisted", "gunicorn", "uvicorn", "aiomisc", "supervisor")


def machine() -> str:
    """Describe the machine in a line."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    model = models[0] if models else platform.machine()
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def versions() -> str:
    """Name the versions of everything that is compared."""
    told = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _PACKAGES)]
    if which("nginx"):
        shown = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
        told.append(f"nginx {shown.partition('/')[2].split()[0]}")
    return ", ".join(told)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Run on one core inside of the block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Calm:
    """Tells whether the machine is quiet, by how long the same arithmetic takes on each core.

    The quickest time seen so far is what a quiet machine takes.
    """

    def __init__(self) -> None:
        self._best = min(self._spin(core) for core in (SERVER_CORE, LOAD_CORE) for _ in range(20))

    def is_calm(self) -> bool:
        """Spin on both cores; tell whether neither took longer than a quiet one does.

        A single spin that was hit by an interrupt does not count: the better of three is taken.
        """
        times = [min(self._spin(core) for _ in range(3)) for core in (SERVER_CORE, LOAD_CORE)]
        self._best = min(self._best, *times)
        return max(times) < self._best * _SLOWER

    @staticmethod
    def _spin(core: int) -> float:
        with on_core(core):
            begin = time.perf_counter()
            total = 0
            for number in range(_SPIN):
                total += number
            return time.perf_counter() - begin


def check() -> None:
    """Exit with a reason where the benchmarks cannot run."""
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("the benchmarks need two cores, one for the server and one for its clients")
    try:
        versions()  # now, and not after minutes
    except PackageNotFoundError as missing:
        sys.exit(f"{missing.name} is not installed for this Python: use `make bench`")
