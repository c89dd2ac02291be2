"""What the figures of a comparison are made of: medians, ratios, and when the answer is that nobody knows."""

import pytest

from bench.compare import Comparison, Contestant, Figure, Goal, Results, complete_pages
from bench.plot import plot
from bench.table import goals, section


def results(
    ours: list[float],
    theirs: list[float],
    *,
    limit: float = 1.0,
    at_least: bool = False,
    calm: bool = True,
    exact: bool = False,
) -> Results:
    """Return the results of runs in which we and they had these figures."""
    goal = Goal("speed", "time", "tamed", "them", limit, at_least)
    contestants = [Contestant("tamed", dict), Contestant("them", dict)]
    figures = {"time": Figure("time", "ms", 1e3, 1, exact=exact)}
    found = Results(Comparison("key", "Title", figures, contestants, [goal]))
    for a, b in zip(ours, theirs, strict=True):
        found.add({"tamed": {"time": a}, "them": {"time": b}}, calm=calm)
    return found


def word(found: Results) -> str:
    """Return what is said of the only goal."""
    (verdict,) = found.verdicts()
    return verdict.word


def test_ratio_is_the_median_of_each_runs_ratio() -> None:
    """A run in which the whole machine was slow counts as any other."""
    (verdict,) = results([1.0, 10.0, 1.0], [2.0, 20.0, 1.0]).verdicts()
    assert verdict.value == 0.5


@pytest.mark.parametrize(
    ("limit", "at_least", "expected"),
    [(1.0, False, "met"), (0.4, False, "missed"), (0.4, True, "met"), (1.0, True, "missed")],
)
def test_goal_is_met_or_missed(limit: float, at_least: bool, expected: str) -> None:
    """Half of their time is below 1.0 and above 0.4, which is good or bad as the goal says."""
    assert word(results([1.0] * 5, [2.0] * 5, limit=limit, at_least=at_least)) == expected


def test_busy_machine_tells_only_what_its_runs_agree_on() -> None:
    """Ratios that are close together tell something on a busy machine too; a single one does not."""
    assert word(results([1.0] * 5, [2.0] * 5, calm=False)) == "met"
    assert word(results([1.0], [2.0], calm=False)) == "too noisy to tell"
    scattered = [0.3, 0.4, 0.6, 0.7, 0.9]
    assert word(results(scattered, [1.0] * 5, limit=2.0, calm=False)) == "too noisy to tell"


def test_busy_machine_is_named() -> None:
    """The section says that the single figures are not to be relied upon."""
    assert "busy with other things" in section(results([1.0] * 5, [2.0] * 5, calm=False))


def test_busy_machine_does_not_change_what_is_exact() -> None:
    """Memory and counts are what they are."""
    assert word(results([1.0] * 5, [2.0] * 5, calm=False, exact=True)) == "met"


def test_ratios_around_the_limit_tell_nothing() -> None:
    """Ratios that are far apart, with the limit between them, are no answer; all on one side are."""
    scattered = [0.7, 0.8, 1.0, 1.2, 1.3]
    assert word(results(scattered, [1.0] * 5)) == "too noisy to tell"
    assert word(results(scattered, [1.0] * 5, limit=2.0)) == "met"


def test_goal_without_the_other_is_left_out() -> None:
    """A peer that is not installed takes its goals along."""
    found = results([], [])
    found.add({"tamed": {"time": 1.0}}, calm=True)
    assert list(found.verdicts()) == []


def test_goal_may_be_a_number() -> None:
    """A goal against nobody is held against the figure itself."""
    goal = Goal("failures", "failed", "tamed", None, 0)
    figures = {"failed": Figure("failed", exact=True)}
    found = Results(Comparison("key", "Title", figures, [Contestant("tamed", dict)], [goal]))
    found.add({"tamed": {"failed": 0}}, calm=False)
    assert word(found) == "met"
    found.add({"tamed": {"failed": 3}}, calm=False)
    found.add({"tamed": {"failed": 3}}, calm=False)
    assert word(found) == "missed"


def test_tables_and_plot_show_everyone() -> None:
    """Each contestant has its figure in the unit, in the table and in the picture, and each goal its row."""
    found = results([0.001] * 3, [0.0025] * 3)
    assert "| tamed | 1.0 | 1.00 |" in section(found)
    assert "| them | 2.5 | 2.50 |" in section(found)
    assert "| speed | at most 1 x them | 0.4 x |  | met |" in goals([found])
    picture = plot([found])
    assert picture.count("<rect") == 2
    assert ">2.5</text>" in picture


def test_a_page_is_written_only_if_all_of_it_was_measured() -> None:
    """A page of which one comparison is missing is left as it is."""
    web, more = (Comparison(key, key, {}, [], page="web") for key in ("web-a", "web-b"))
    other = Comparison("cpu", "CPU", {}, [])
    wanted = [web, other, more]
    assert complete_pages(wanted, [Results(web), Results(other)]).keys() == {"results"}
    everything = complete_pages(wanted, [Results(one) for one in wanted])
    assert {page: [one.comparison for one in found] for page, found in everything.items()} == {
        "web": [web, more],
        "results": [other],
    }
