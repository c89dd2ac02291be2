"""Merging: sums that no worker's end changes, modes of gauges, and workers that disagree."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamed.metrics.merge import Cell, Figures, Merged, Merger, Sample, add_to_base
from tamed.metrics.table import Family, Series

JOBS = Series(Family("jobs", "counter"), "jobs_total", ())
EMPTY = Figures([], [], {})


def figures(slot: str, cells: dict[Series, float], times: Sequence[float] = ()) -> Figures:
    """Return the figures of a worker."""
    seconds = [*times, *[0.0] * len(cells)]
    flat = [number for cell in zip(cells.values(), seconds, strict=False) for number in cell]
    return Figures([*cells], flat, {series.family.name: "what it is" for series in cells}, slot)


def base_of(*dead: Figures) -> Figures:
    """Return the base to which these workers have been added, one after another."""
    base: dict[Series, Cell] = {}
    for each in dead:
        base |= add_to_base(base.get, each)
    return Figures([*base], [number for cell in base.values() for number in cell], {})


def samples(base: Figures, *living: Figures) -> list[Sample]:
    """Return all merged samples."""
    return [sample for merged in Merger().merge(base, living) for sample in merged.samples]


def gauge(mode: str, name: str = "level") -> Series:
    """Return a gauge of a mode."""
    return Series(Family(name, "gauge", mode), name, ())


@given(
    st.lists(st.integers(0, 2**60).map(lambda number: number / 2**20), min_size=1, max_size=6),
    st.permutations(range(6)),
)
def test_sum_does_not_change_when_workers_end(workers: list[float], order: list[int]) -> None:
    """The sum of a counter is the same, to the last bit, whichever workers have ended, in any order."""
    alive = {i: figures(str(i), {JOBS: each}) for i, each in enumerate(workers)}
    expected = samples(EMPTY, *alive.values())
    dead = []
    for number in order:
        if number in alive:
            dead.append(alive.pop(number))
            assert samples(base_of(*dead), *alive.values()) == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6), st.booleans()), max_size=40))
def test_sum_never_decreases(events: list[tuple[int, float, bool]]) -> None:
    """A counter's sum never decreases, whatever workers count, and whenever they end and are replaced."""
    totals = [0.0] * 4
    dead: list[Figures] = []
    last = 0.0
    for number, amount, ends in events:
        totals[number] += amount
        if ends:
            dead.append(figures(str(number), {JOBS: totals[number]}))
            totals[number] = 0.0
        living = [figures(str(i), {JOBS: total}) for i, total in enumerate(totals)]
        [sample] = samples(base_of(*dead), *living)
        assert sample.value >= last
        last = sample.value


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("sum", 9.0),
        ("livesum", 5.0),
        ("min", 1.0),
        ("livemin", 2.0),
        ("max", 4.0),
        ("livemax", 3.0),
        ("mostrecent", 4.0),
        ("livemostrecent", 2.0),
    ],
)
def test_gauges_are_merged_by_their_mode(mode: str, expected: float) -> None:
    """A gauge's mode says how values are merged; those that begin with live leave ended workers out."""
    series = gauge(mode)
    dead = [figures("1", {series: 3.0}, [1.0]), figures("2", {series: 1.0}, [2.0])]
    if mode.endswith(("sum", "mostrecent", "max")):
        dead = [figures("1", {series: 4.0}, [9.0])]
    living = [figures("1", {series: 3.0}, [3.0]), figures("2", {series: 2.0}, [4.0])]
    assert samples(base_of(*dead), *living) == [Sample("level", (), expected)]


def test_gauge_of_each_worker_has_its_number() -> None:
    """Of a gauge with the mode all there is a series for each number of a worker, living or not; no pid."""
    series = gauge("all")
    base = base_of(figures("1", {series: 7.0}), figures("3", {series: 8.0}))
    assert samples(base, figures("1", {series: 1.0}), figures("2", {series: 2.0})) == [
        Sample("level", (("worker", "1"),), 1.0),
        Sample("level", (("worker", "3"),), 8.0),
        Sample("level", (("worker", "2"),), 2.0),
    ]


def test_draining_worker_is_beside_its_successor() -> None:
    """A worker whose number another has taken over is shown as draining until it ends."""
    series = gauge("liveall")
    living = [figures("1", {series: value}) for value in (1.0, 2.0, 3.0)]
    assert samples(EMPTY, *living) == [
        Sample("level", (("worker", "1-draining"),), 3.0),
        Sample("level", (("worker", "1"),), 3.0),
    ]


def test_label_of_the_application_is_kept() -> None:
    """If a gauge has a label worker of its own, the number of the worker is in tamed_worker."""
    series = Series(Family("level", "gauge", "all"), "level", (("worker", "bee"),))
    [sample] = samples(EMPTY, figures("1", {series: 1.0}))
    assert sample.labels == (("worker", "bee"), ("tamed_worker", "1"))


def test_histogram_is_cumulative() -> None:
    """The buckets of a merged histogram are cumulative, and their last is its count."""
    family = Family("took", "histogram")

    def bucket(bound: str) -> Series:
        return Series(family, "took_bucket", (("le", bound),))

    total = Series(family, "took_sum", ())
    first = figures("1", {total: 1.5, bucket("1.0"): 2.0, bucket("+Inf"): 1.0})
    second = figures("2", {total: 9.0, bucket("0.5"): 1.0, bucket("+Inf"): 1.0})
    assert Merger().merge(base_of(first), [second]) == [
        Merged(
            family,
            "what it is",
            [
                Sample("took_sum", (), 10.5),
                Sample("took_bucket", (("le", "0.5"),), 1.0),
                Sample("took_bucket", (("le", "1.0"),), 3.0),
                Sample("took_bucket", (("le", "+Inf"),), 5.0),
                Sample("took_count", (), 5.0),
            ],
        )
    ]


def test_info_is_that_of_living_workers() -> None:
    """An info is shown while a worker has it; one that was replaced, or whose worker has ended, is not."""
    old, new = (Series(Family("build", "info"), "build_info", (("version", each),)) for each in "12")
    base = base_of(figures("1", {old: 1.0}))
    assert samples(base, figures("1", {old: 0.0, new: 1.0})) == [
        Sample("build_info", (("version", "2"),), 1.0)
    ]


def test_youngest_worker_is_right_about_a_family() -> None:
    """If a name is a counter in one worker and a gauge in a younger one, only the gauge is shown."""
    series = gauge("sum", "jobs")
    assert samples(EMPTY, figures("1", {JOBS: 5.0}), figures("1", {series: 2.0})) == [Sample("jobs", (), 2.0)]


def test_gauge_that_calls_a_function_is_not_shown() -> None:
    """Nobody else can call a function of a worker, so such a gauge has no value rather than a wrong one."""
    assert samples(EMPTY, figures("1", {gauge("sum"): math.nan})) == []


def test_unknown_kinds_are_left_out() -> None:
    """A worker can write any kind and mode into its table; those that do not exist are ignored."""
    strange = {Series(Family("a", kind, mode), "a", ()): 1.0 for kind, mode in [("a", ""), ("gauge", "odd")]}
    assert samples(base_of(figures("1", strange)), figures("1", strange)) == []


@pytest.mark.parametrize("worst", [math.inf, 1e308])
def test_sums_of_any_size_are_merged(worst: float) -> None:
    """Values whose sum is no finite number are merged without an error."""
    dead = [figures("1", {JOBS: worst}), figures("2", {JOBS: worst})]
    [sample] = samples(base_of(*dead), figures("3", {JOBS: 1.0}))
    assert sample.value == math.inf


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1e6)), max_size=4), max_size=5))
def test_places_that_are_kept_are_those_of_now(scrapes: list[list[tuple[str, float]]]) -> None:
    """A merger that has merged other workers and other series before merges as a new one does."""
    kept = Merger()
    for scrape in scrapes:
        living = [
            figures(name, {JOBS: value, gauge("all"): value} if name == "a" else {gauge("max", name): value})
            for name, value in scrape
        ]
        assert kept.merge(EMPTY, living) == Merger().merge(EMPTY, living)
