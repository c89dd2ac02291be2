"""Runs a comparison: each contestant in turn, over and over, and the machine watched meanwhile."""

import sys
import time
from collections.abc import Sequence
from functools import cache

from bench.compare import Comparison, Contestant, Figures, Results
from bench.machine import Calm

__all__ = ["run"]


@cache
def _machine() -> Calm:
    return Calm()


def run(comparison: Comparison, runs: int) -> Results:
    """Measure the contestants that are there, alternating, so many times. Progress goes to standard error."""
    results = Results(comparison)
    there = [one for one in comparison.contestants if not one.missing]
    for one in comparison.contestants:
        if one.missing:
            _say(f"{comparison.key}: {one.name} is left out: it takes {one.missing}\n")
    runs = min(runs, comparison.at_most)
    begin = time.monotonic()
    for number in range(1, runs + 1):
        _say(f"\r{comparison.key}: run {number} of {runs} ")
        was_calm = _machine().is_calm()
        figures = _measure(there)
        results.add(figures, calm=was_calm and _machine().is_calm())
    _say(f"{time.monotonic() - begin:.0f} s\n")
    return results


def _measure(contestants: Sequence[Contestant]) -> dict[str, Figures]:
    figures = {}
    for one in contestants:
        try:
            figures[one.name] = one.run()
        except (OSError, RuntimeError) as error:  # one that fails must not take the others' figures along
            _say(f"\n{one.name}: {error}\n")
    return figures


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)
