"""How much a service costs to build, start and stop, beside Twisted's: ``python bench/services.py``.

Each measurement is a process of its own, ours and Twisted's in turn. The figures are microseconds of CPU
for each service: the median of the runs, with the least and the most. The ratio is the median of the
ratios of each pair of runs. The services with hooks do nothing in them: ours has a `start` and a `stop`,
Twisted's calls up in `startService` and `stopService`, as it must. Twisted has to be there:
``pip install twisted``.
"""

import argparse
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

_OURS = """
import asyncio, json, sys, time
from tamed.service import Application, Service
from tamed.service.lifecycle import bring_up, take_down

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
    await bring_up(application)
    times.append(clock())
    await take_down(application)
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

_NOISE = 0.15
"""How far apart the ratios of the middle half of the runs may be."""


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
    ratios: list[float] = []
    for column, step in enumerate(_STEPS):
        ours, theirs = ([pair[side][column] for pair in pairs] for side in range(2))
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(f"{step:8}{_shown(ours):>24}{_shown(theirs):>24}{statistics.median(ratios):8.2f}")
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    if high - low > _NOISE:
        print(f"the machine is too noisy to tell: half of the ratios are outside {low:.2f} to {high:.2f}")


def _shown(figures: list[float]) -> str:
    return f"{statistics.median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"


def machine() -> str:
    """Describe what this runs on."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.platform()}, {os.cpu_count()} x {models[0] if models else platform.machine()}"


def main() -> None:
    """Compare trees of services with hooks, and bare ones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7, help="how often each is measured, at least 2")
    parser.add_argument("--count", type=int, nargs="*", default=[10_000, 100_000])
    arguments = parser.parse_args()
    if importlib.util.find_spec("twisted") is None:
        sys.exit("Twisted is not installed: pip install twisted")
    print(machine())
    print(f"Python {platform.python_version()}, tamed {version('tamed')}, Twisted {version('twisted')}")
    for count in arguments.count:
        for kind in ("hooks", "bare"):
            compare(count, kind, arguments.runs)


if __name__ == "__main__":
    main()
