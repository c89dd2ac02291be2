"""Merging the metrics of several workers into one set, in which a worker's end changes no sum.

Pure arithmetic on what was read of tables. Workers that have ended are in one table, the base, to which each
has been added once. Counters, histograms and summaries are sums over all workers, those of the base included.
A gauge has a mode, with the meaning that ``prometheus_client`` gives it: ``sum``, ``min``, ``max`` and
``mostrecent`` are over all workers, and ``livesum`` and so on over those that have not ended. ``all`` and
``liveall`` are a series for each worker. It has the number of the worker as a label, and not its pid, so
that the number of series does not grow with each worker that is replaced. An info is that of any worker that
has not ended.

A sum must never decrease when a worker ends: Prometheus would take it for a restart, and count everything
again. Sums of floats depend on the order of the terms, so they are summed exactly (`math.fsum`), and the base
keeps what is lost when a sum is rounded, in the second number of its cells. What even that cannot hold is
rounded up.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from tamed.metrics.table import Cells, Family, Series

__all__ = ["Cell", "Figures", "Merged", "Sample", "add_to_base", "merge"]

_SUMS: Final = ("counter", "histogram", "summary")
_MODES: Final = ("all", "max", "min", "mostrecent", "sum")
_DRAINING: Final = "draining"

Labels = tuple[tuple[str, str], ...]


class Figures(NamedTuple):
    """What was read of a table. ``slot`` is the number of the worker, empty for the base."""

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


def merge(base: Figures, living: Sequence[Figures]) -> list[Merged]:
    """Merge the base and workers, the oldest first.

    If workers disagree on what a family is, as they may during a reload, the youngest is right, and what
    others have under its name is left out.
    """
    cells, families = _collected(base, living)
    explanations: dict[str, str] = {}
    for figures in (base, *living):
        explanations.update(figures.explanations)
    merged = {name: Merged(family, explanations.get(name, ""), []) for name, family in families.items()}
    for series, numbers in cells.items():
        family, _, samples = merged[series.family.name]
        value = _value(series, numbers)
        if series.family == family and not _is_void(family, value):
            samples.append(Sample(series.sample, _labels(series), value))
    return [_as_exposed(each) for each in merged.values() if each.samples]


def _collected(
    base: Figures, living: Sequence[Figures]
) -> tuple[dict[Series, list[float]], dict[str, Family]]:
    """Return the numbers of each series, both of each of its cells, and the families by name."""
    cells: dict[Series, list[float]] = {}
    families: dict[str, Family] = {}
    # By the identity of a series, which the readers share: to hash it takes longer than all the rest.
    places: dict[int, list[float]] = {}
    for figures, slot in zip((base, *living), ("", *_slots(living)), strict=True):
        pairs = zip(figures.cells[::2], figures.cells[1::2], strict=True)
        for series, cell in zip(figures.series, pairs, strict=True):
            families[series.family.name] = series.family
            if (numbers := places.get(id(series))) is not None:
                numbers += cell
            elif _is_known(series.family):
                is_shared = bool(series.slot) or not _is_by_worker(series.family)
                key = series if is_shared else series._replace(slot=slot)
                cells.setdefault(key, []).extend(cell)
                if is_shared:
                    places[id(series)] = cells[key]
    return cells, families


def add_to_base(base: Callable[[Series], Cell | None], dead: Figures) -> dict[Series, Cell]:
    """Return the cells of the base that change when a worker is added to it that has ended.

    ``base`` returns the cell of a series, None if the base has no such series.
    """
    changed: dict[Series, Cell] = {}
    for series, cell in _rows(dead):
        if series.family.kind == "info" or series.family.mode.startswith("live"):
            continue
        key = series._replace(slot=dead.slot) if _is_by_worker(series.family) else series
        former = base(key)
        changed[key] = _reduced(key, [cell] if former is None else [former, cell])
    return changed


def _rows(figures: Figures) -> Iterable[tuple[Series, Cell]]:
    """Yield the rows of known kinds."""
    cells = zip(figures.cells[::2], figures.cells[1::2], strict=True)
    for series, cell in zip(figures.series, cells, strict=True):
        if _is_known(series.family):
            yield series, cell


def _is_known(family: Family) -> bool:
    kind, mode = family.kind, family.mode.removeprefix("live")
    return kind in _SUMS or kind == "info" or (kind == "gauge" and mode in _MODES)


def _is_by_worker(family: Family) -> bool:
    return family.mode in ("all", "liveall")


def _is_void(family: Family, value: float) -> bool:
    """Return whether a series has no value: an info that was replaced, or a gauge that calls a function."""
    return (family.kind == "info" and value != 1) or (family.kind == "gauge" and math.isnan(value))


def _value(series: Series, numbers: Sequence[float]) -> float:
    """Return the value that several cells of a series make; ``numbers`` are both of each."""
    if series.family.kind in _SUMS:
        return _sum(numbers)
    return _reduced(series, list(zip(numbers[::2], numbers[1::2], strict=True)))[0]


def _reduced(series: Series, found: Sequence[Cell]) -> Cell:
    """Return the one cell that several cells of a series make."""
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
            # Workers that drain share a slot; a worker takes the place of its predecessor that has ended.
            return (_sum([value for value, _ in found]), 0.0) if _DRAINING in series.slot else found[-1]
        case _:  # max, and info
            return max(value for value, _ in found), 0.0


def _exact(terms: Sequence[float]) -> Cell:
    """Return a sum and its rounding error; what two numbers cannot hold is rounded up."""
    value = _sum(terms)
    if not math.isfinite(value):
        return value, 0.0
    error = _sum([*terms, -value])
    return value, error if _sum([*terms, -value, -error]) <= 0 else math.nextafter(error, math.inf)


def _sum(terms: Sequence[float]) -> float:
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):  # infinities, or the sum is none
        return sum(terms)


def _slots(living: Sequence[Figures]) -> list[str]:
    """Return the slot of each worker. A worker whose number a younger one has is about to leave."""
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


def _as_exposed(merged: Merged) -> Merged:
    """Return a family as Prometheus wants it: a histogram's buckets are cumulative, and it has a count."""
    if merged.family.kind != "histogram":
        return merged
    buckets: dict[Labels, dict[float, float]] = {}
    samples = []
    for sample in merged.samples:
        bound = _bound(sample)
        if bound is None:
            samples.append(sample)
        else:
            rest = tuple(label for label in sample.labels if label[0] != "le")
            buckets.setdefault(rest, {})[bound] = sample.value
    name = merged.family.name
    for labels, counts in buckets.items():
        count = 0.0
        for bound in sorted(counts):
            count += counts[bound]
            samples.append(Sample(f"{name}_bucket", (*labels, ("le", _bound_text(bound))), count))
        samples.append(Sample(f"{name}_count", labels, count))
    return merged._replace(samples=samples)


def _bound(sample: Sample) -> float | None:
    for label, text in sample.labels:
        if label == "le" and sample.name.endswith("_bucket"):
            try:
                return float(text)
            except ValueError:
                return None
    return None


def _bound_text(bound: float) -> str:
    return "+Inf" if bound == math.inf else repr(bound)
