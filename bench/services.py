"""How much a service costs to build, start and stop, beside Twisted's: ``python bench/services.py``.

Each measurement is a process of its own, ours and Twisted's in turn. The figures are microseconds of CPU
for each service: the median of the runs. Twisted has to be there: ``pip install twisted``.
"""

import argparse
import importlib.util
import itertools
import json
import platform
import statistics
import subprocess
import sys

_OURS = """
import asyncio, json, sys, time
from tamed.service import Application, Service, lifecycle

class Hooked(Service):
    async def start(self): pass
    async def stop(self): pass

async def main(count, kind):
    clock = time.process_time
    times = [clock()]
    application = Application("bench")
    for number in range(count):
        application.add(kind(f"s{number}"))
    times.append(clock())
    await lifecycle.bring_up(application)
    times.append(clock())
    await lifecycle.take_down(application)
    times.append(clock())
    return times

kind = Hooked if sys.argv[2] == "hooks" else Service
print(json.dumps(asyncio.run(main(int(sys.argv[1]), kind))))
"""

_TWISTED = """
import json, sys, time
from twisted.application.service import MultiService, Service

class Hooked(Service):
    def startService(self): Service.startService(self)
    def stopService(self): Service.stopService(self)

def main(count, kind):
    clock = time.process_time
    times = [clock()]
    application = MultiService()
    for number in range(count):
        service = kind()
        service.setName(f"s{number}")
        service.setServiceParent(application)
    times.append(clock())
    application.privilegedStartService()
    application.startService()
    times.append(clock())
    application.stopService()
    times.append(clock())
    return times

kind = Hooked if sys.argv[2] == "hooks" else Service
print(json.dumps(main(int(sys.argv[1]), kind)))
"""

_STEPS = ("build", "start", "stop", "all")


def measure(program: str, count: int, kind: str) -> list[float]:
    """Run a program once; return the microseconds that each service took: by step, and in all."""
    command = [sys.executable, "-c", program, str(count), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    times = json.loads(done.stdout)
    spent = [(later - earlier) / count * 1e6 for earlier, later in itertools.pairwise(times)]
    return [*spent, sum(spent)]


def compare(count: int, kind: str, runs: int) -> None:
    """Print a table for one size and kind of tree."""
    pairs = [(measure(_OURS, count, kind), measure(_TWISTED, count, kind)) for _ in range(runs)]
    print(f"\n{count:,} services, {kind}: microseconds each, median of {runs} runs (least to most)")
    print(f"{'':8}{'tamed':>24}{'twisted':>24}{'ratio':>8}")
    for column, step in enumerate(_STEPS):
        ours, theirs = ([pair[side][column] for pair in pairs] for side in range(2))
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"{step:8}{_shown(ours):>24}{_shown(theirs):>24}{ratio:8.2f}")


def _shown(figures: list[float]) -> str:
    return f"{statistics.median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"


def main() -> None:
    """Compare trees of services with hooks, and bare ones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--count", type=int, nargs="*", default=[10_000, 100_000])
    arguments = parser.parse_args()
    if importlib.util.find_spec("twisted") is None:
        sys.exit("Twisted is not installed: pip install twisted")
    from importlib.metadata import version

    print(f"{platform.platform()}, Python {platform.python_version()}, Twisted {version('twisted')}")
    for count in arguments.count:
        for kind in ("hooks", "bare"):
            compare(count, kind, arguments.runs)


if __name__ == "__main__":
    main()
