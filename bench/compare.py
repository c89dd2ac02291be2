"""Comparisons: what is measured, how often, and what the figures say about the goals."""

import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Comparison", "Contestant", "Figure", "Figures", "Goal", "Results", "Verdict", "complete_pages"]

Figures = Mapping[str, float]
"""What one run of one contestant gave: a number for each figure."""

_ENOUGH = 3
"""How many runs on a busy machine tell something, if they agree."""

_NOISE = 0.15
"""How far apart the ratios of the middle half of the runs may be, as a share of their median."""


@dataclass(frozen=True)
class Figure:
    """Something that is measured: how it is called, and shown. ``scale`` makes the unit of seconds or bytes.

    What is ``exact`` does not depend on how quiet the machine is: memory, and counts of failures.
    """

    title: str
    unit: str = ""
    scale: float = 1
    digits: int = 1
    exact: bool = False

    def shown(self, value: float) -> str:
        """Write a value down."""
        return f"{value * self.scale:,.{self.digits}f}"


@dataclass(frozen=True)
class Goal:
    """What is wanted of one figure of a contestant: against another's, or with ``theirs`` None as it is."""

    what: str
    figure: str
    ours: str
    theirs: str | None
    limit: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        """Tell whether a value is within the limit."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.at_least else "at most"
        return f"{bound} {self.limit:g}" + (f" x {self.theirs}" if self.theirs else "")


@dataclass(frozen=True)
class Contestant:
    """One of those that are compared; ``missing`` says what has to be installed first, if anything."""

    name: str
    run: Callable[[], Figures]
    missing: str = ""


@dataclass(frozen=True)
class Comparison:
    """Contestants that are measured in turn.

    What takes long is measured ``at_most`` so many times. ``page`` is the page of the docs that has it.
    """

    key: str
    title: str
    figures: Mapping[str, Figure]
    contestants: Sequence[Contestant]
    goals: Sequence[Goal] = ()
    note: str = ""
    at_most: int = sys.maxsize
    page: str = "results"


@dataclass(frozen=True)
class Verdict:
    """What came of a goal: the median of the runs, and how far apart the middle half of them was."""

    goal: Goal
    value: float
    low: float
    high: float
    is_noisy: bool

    @property
    def word(self) -> str:
        """Say it in a word or two."""
        if self.is_noisy:
            return "too noisy to tell"
        return "met" if self.goal.is_met(self.value) else "missed"


def complete_pages(
    wanted: Iterable[Comparison], everything: Iterable["Results"]
) -> Mapping[str, Sequence["Results"]]:
    """Return the results by page, of those pages whose comparisons have all been made."""
    made: dict[str, list[Results]] = {}
    for results in everything:
        made.setdefault(results.comparison.page, []).append(results)
    counts = Counter(one.page for one in wanted)
    return {page: results for page, results in made.items() if len(results) == counts[page]}


@dataclass
class Results:
    """The figures of one comparison, run by run, and which of the runs the machine was quiet in."""

    comparison: Comparison
    samples: dict[str, list[Figures]] = field(default_factory=dict)
    calm: list[bool] = field(default_factory=list)

    def add(self, figures: Mapping[str, Figures], *, calm: bool) -> None:
        """Add one run: the figures of each contestant."""
        for name, found in figures.items():
            self.samples.setdefault(name, []).append(found)
        self.calm.append(calm)

    @property
    def is_noisy(self) -> bool:
        """Whether the machine was quiet in less than half of the runs."""
        return sum(self.calm) * 2 < len(self.calm)

    def values(self, contestant: str, figure: str) -> list[float]:
        """Return a figure of each run."""
        return [found[figure] for found in self.samples.get(contestant, []) if figure in found]

    def median(self, contestant: str, figure: str) -> float | None:
        """Return the median of a figure, if it was measured."""
        values = self.values(contestant, figure)
        return statistics.median(values) if values else None

    def verdicts(self) -> Iterable[Verdict]:
        """Hold the figures against the goals; leave out those for which somebody is missing."""
        for goal in self.comparison.goals:
            values = self.values(goal.ours, goal.figure)
            if goal.theirs is not None:
                theirs = self.values(goal.theirs, goal.figure)
                values = [a / b for a, b in zip(values, theirs, strict=False) if b]
            if values:
                yield self._verdict(goal, values)

    def _verdict(self, goal: Goal, values: list[float]) -> Verdict:
        middle = statistics.median(values)
        low, _, high = (
            statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [middle] * 3
        )
        # Noise that does not reach the limit leaves the answer as it is: who takes turns is slowed alike. But
        # on a busy machine a single run, or runs that lie wide apart, may all have been hit on one side.
        is_wide = (high - low) > _NOISE * middle
        undecided = is_wide and (goal.is_met(low) != goal.is_met(high) or self.is_noisy)
        alone = self.is_noisy and len(values) < _ENOUGH
        exact = self.comparison.figures[goal.figure].exact
        return Verdict(goal, middle, low, high, is_noisy=not exact and (undecided or alone))
