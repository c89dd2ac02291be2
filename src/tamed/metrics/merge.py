"""Merging the metrics of workers into one set of which no sum changes when a worker ends.

Pure arithmetic on the data of tables. Ended workers are in one table, the base, to which each was added once.
Counters, histograms and summaries are sums over all workers, including the base.
A gauge has a mode, with the meaning that ``prometheus_client`` gives it: ``sum``, ``min``, ``max`` and
``mostrecent`` are over all workers, and ``livesum`` and so on over those that have not ended. ``all`` and
``liveall`` are a series for each worker. It has the number of the worker as a label, and not its pid, so
that the number of series does not grow with each replaced worker. An info is that of any living worker.

A sum must never decrease when a worker ends: Prometheus would take that for a restart and count everything
again. Sums of floats depend on the order of the terms, so they are exact (`math.fsum`), and the base keeps
the rounding error of a sum in the second number of its cells. A remaining error is rounded up.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from tamed.metrics.table import Cells, Family, Series

__all__ = ["Cell", "Figures", "Merged", "Merger", "Sample", "add_to_base"]

_SUMS: Final = ("counter", "histogram", "summary")
_MODES: Final = ("all", "max", "min", "mostrecent", "sum")
_DRAINING: Final = "draining"

Labels = tuple[tuple[str, str], ...]


class Figures(NamedTuple):
    """The content of a table. ``slot`` is the number of the worker, empty for the base."""

    series: Sequence[Series]
    cells: Cells
    explanations: Mapping[str, str]
    slot: str = ""


class Sample(NamedTuple):
    """A sample of a merged family."""

    name: str
    labels: Labels
    value: float


class Merged(NamedTuple):
    """A merged family with its samples."""

    family: Family
    explanation: str
    samples: list[Sample]


Cell = tuple[float, float]
"""The two numbers of a row."""


class Merger:
    """Merges the base and the workers, repeatedly.

    Locating the numbers of each series takes longer than adding them, so the places are cached as long as the
    tables have the same series.
    """

    def __init__(self) -> None:
        self._tables: list[tuple[str, list[Series]]] = []
        self._families: list[_Family] = []

    def merge(self, base: Figures, living: Sequence[Figures]) -> list[Merged]:
        """Merge the base and workers, the oldest first.

        If workers disagree about the kind of a family, as they may during a reload, the youngest decides, and
        the others' series of that name are omitted.
        """
        tables = [(each.slot, list(each.series)) for each in (base, *living)]
        if tables != self._tables:
            self._tables, self._families = tables, _families(base, living)
        numbers: list[float] = []
        for each in (base, *living):
            numbers += each.cells
        merged = (family.merged(numbers) for family in self._families)
        return [each for each in merged if each.samples]


class _Row(NamedTuple):
    """A sample, and the places of its cells' numbers among those of all tables."""

    series: Series
    name: str
    labels: Labels
    take: Callable[[Sequence[float]], Sequence[float]]

    def value(self, numbers: Sequence[float]) -> float:
        """Return the merged value of the series' cells."""
        own = self.take(numbers)
        if self.series.family.kind in _SUMS:
            return _sum(own)
        return _reduced(self.series, list(zip(own[::2], own[1::2], strict=True)))[0]


class _Family(NamedTuple):
    """A family for exposition. ``buckets`` are those of a histogram by labels and bounds."""

    family: Family
    explanation: str
    rows: list[_Row]
    buckets: list[tuple[Labels, list[_Row]]]

    def merged(self, numbers: Sequence[float]) -> Merged:
        """Return the family with its samples; Prometheus requires cumulative buckets, and a count."""
        samples = [Sample(row.name, row.labels, row.value(numbers)) for row in self.rows]
        if self.family.kind in ("gauge", "info"):
            samples = [sample for sample in samples if not _is_void(self.family, sample.value)]
        for labels, rows in self.buckets:
            count = 0.0
            for row in rows:
                count += row.value(numbers)
                samples.append(Sample(row.name, row.labels, count))
            samples.append(Sample(f"{self.family.name}_count", labels, count))
        return Merged(self.family, self.explanation, samples)


def _families(base: Figures, living: Sequence[Figures]) -> list[_Family]:
    """Return the families, those of the base first, each with the series of its kind."""
    places, families = _places(base, living)
    explanations: dict[str, str] = {}
    for figures in (base, *living):
        explanations.update(figures.explanations)
    rows: dict[str, list[_Row]] = {name: [] for name in families}
    for series, indexes in places.items():
        if series.family == families[series.family.name]:
            row = _Row(series, series.sample, _labels(series), itemgetter(*indexes))
            rows[series.family.name].append(row)
    return [
        _Family(family, explanations.get(name, ""), *_apart(family, rows[name]))
        for name, family in families.items()
    ]


def _places(base: Figures, living: Sequence[Figures]) -> tuple[dict[Series, list[int]], dict[str, Family]]:
    """Return the places of each series' numbers among those of all tables, and the families by name."""
    places: dict[Series, list[int]] = {}
    families: dict[str, Family] = {}
    shared: dict[int, list[int]] = {}  # by identity, which readers share: hashing a series is slower
    at = 0
    for figures, slot in zip((base, *living), ("", *_slots(living)), strict=True):
        for series in figures.series:
            families[series.family.name] = series.family
            if (found := shared.get(id(series))) is not None:
                found += (at, at + 1)
            elif _is_known(series.family):
                is_shared = bool(series.slot) or not _is_by_worker(series.family)
                key = series if is_shared else series._replace(slot=slot)
                found = places.setdefault(key, [])
                found += (at, at + 1)
                if is_shared:
                    shared[id(series)] = found
            at += 2
    return places, families


def add_to_base(base: Callable[[Series], Cell | None], dead: Figures) -> dict[Series, Cell]:
    """Return the cells of the base that change when an ended worker is added to it.

    ``base`` returns the cell of a series, None if the base has no such series.
    """
    changed: dict[Series, Cell] = {}
    cells = zip(dead.cells[::2], dead.cells[1::2], strict=True)
    for series, cell in zip(dead.series, cells, strict=True):
        kind, mode = series.family.kind, series.family.mode
        if not _is_known(series.family) or kind == "info" or mode.startswith("live"):
            continue
        key = series._replace(slot=dead.slot) if _is_by_worker(series.family) else series
        former = base(key)
        changed[key] = _reduced(key, [cell] if former is None else [former, cell])
    return changed


def _is_known(family: Family) -> bool:
    kind, mode = family.kind, family.mode.removeprefix("live")
    return kind in _SUMS or kind == "info" or (kind == "gauge" and mode in _MODES)


def _is_by_worker(family: Family) -> bool:
    return family.mode in ("all", "liveall")


def _is_void(family: Family, value: float) -> bool:
    """Return whether a series has no value: a replaced info, or a gauge that calls a function."""
    return (family.kind == "info" and value != 1) or (family.kind == "gauge" and math.isnan(value))


def _reduced(series: Series, found: Sequence[Cell]) -> Cell:
    """Return the merged cell of several cells of a series."""
    mode = series.family.mode.removeprefix("live")
    if series.family.kind in _SUMS:
        return _exact([number for cell in found for number in cell])
    match mode:
        case "sum":
            return _sum([value for value, _ in found]), 0.0
        case "min":
            return min(value for value, _ in found), 0.0
        case "mostrecent":
            return max(found, key=lambda cell: cell[1])
        case "all":
            # Draining workers share a slot; a worker replaces its ended predecessor.
            return (_sum([value for value, _ in found]), 0.0) if _DRAINING in series.slot else found[-1]
        case _:  # max, and info
            return max(value for value, _ in found), 0.0


def _exact(terms: Sequence[float]) -> Cell:
    """Return a sum and its rounding error; an error that still remains is rounded up."""
    value = _sum(terms)
    if not math.isfinite(value):
        return value, 0.0
    error = _sum([*terms, -value])
    return value, error if _sum([*terms, -value, -error]) <= 0 else math.nextafter(error, math.inf)


def _sum(terms: Sequence[float]) -> float:
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):  # infinities, or an overflow
        return sum(terms)


def _slots(living: Sequence[Figures]) -> list[str]:
    """Return the slot of each worker. A worker is draining if a younger one has its number."""
    last = {figures.slot: index for index, figures in enumerate(living)}
    return [
        figures.slot if last[figures.slot] == index else f"{figures.slot}-{_DRAINING}"
        for index, figures in enumerate(living)
    ]


def _labels(series: Series) -> Labels:
    if not series.slot:
        return series.labels
    name = "tamed_worker" if any(label == "worker" for label, _ in series.labels) else "worker"
    return (*series.labels, (name, series.slot))


def _apart(family: Family, rows: list[_Row]) -> tuple[list[_Row], list[tuple[Labels, list[_Row]]]]:
    """Return the plain rows, and those of a histogram's buckets."""
    if family.kind != "histogram":
        return rows, []
    others: list[_Row] = []
    buckets: dict[Labels, dict[float, _Row]] = {}
    for row in rows:
        bound = _bound(row)
        if bound is None:
            others.append(row)
        else:
            rest = tuple(label for label in row.labels if label[0] != "le")
            labels = (*rest, ("le", _bound_text(bound)))
            buckets.setdefault(rest, {})[bound] = row._replace(labels=labels)
    return others, [(rest, [found[bound] for bound in sorted(found)]) for rest, found in buckets.items()]


def _bound(row: _Row) -> float | None:
    for label, text in row.labels:
        if label == "le" and row.name.endswith("_bucket"):
            try:
                return float(text)
            except ValueError:
                return None
    return None


def _bound_text(bound: float) -> str:
    return "+Inf" if bound == math.inf else repr(bound)
