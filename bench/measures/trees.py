"""Trees of services beside Twisted's: what a service costs to build, start and stop."""

import itertools
import json
import subprocess
from collections.abc import Sequence
from functools import partial

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.machine import SERVER_CORE
from bench.process import PYTHON, command, programs

__all__ = ["tree", "trees"]

_FIGURES = {step: Figure(step, "us", 1e6, 2) for step in ("build", "start", "stop", "all")}


def tree(side: str, count: int, kind: str) -> Figures:
    """Build, start and stop a tree in a process of its own; tell the seconds of CPU that a service took."""
    program = programs / f"tree_{side}.py"
    words = command("taskset", "-c", SERVER_CORE, PYTHON, program, count, kind)
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    times = json.loads(done.stdout)
    spent = [(later - earlier) / count for earlier, later in itertools.pairwise(times)]
    return dict(zip(_FIGURES, [*spent, sum(spent)], strict=True))


def trees() -> Sequence[Comparison]:
    """Return the comparisons of 1,000 services, with hooks that do nothing and without."""
    return [_compare(1_000, kind) for kind in ("hooks", "bare")]


def _compare(count: int, kind: str) -> Comparison:
    what = f"{count:,} services {'with hooks' if kind == 'hooks' else 'without hooks'}"
    return Comparison(
        f"tree-{count}-{kind}",
        f"{what}: CPU for each",
        _FIGURES,
        [
            Contestant("tamed", partial(tree, "tamed", count, kind)),
            Contestant("twisted", partial(tree, "twisted", count, kind)),
        ],
        [Goal(f"{what}, built, started and stopped", "all", "tamed", "twisted", 1.5)],
    )
