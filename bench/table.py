"""The results as Markdown."""

from collections.abc import Iterable, Sequence

from bench.compare import Results, Verdict

__all__ = ["goals", "section"]


def goals(everything: Iterable[Results]) -> str:
    """Return the table of the goals: what was wanted, and what came of it."""
    rows = [_goal(verdict) for results in everything for verdict in results.verdicts()]
    return _table(["what", "goal", "result", "middle half", ""], rows)


def _goal(verdict: Verdict) -> list[str]:
    times = " x" if verdict.goal.theirs else ""
    low, high = _number(verdict.low), _number(verdict.high)
    spread = "" if low == high else f"{low} to {high}"
    return [verdict.goal.what, str(verdict.goal), f"{_number(verdict.value)}{times}", spread, verdict.word]


def _number(value: float) -> str:
    return f"{value:.3g}"


def section(results: Results) -> str:
    """Return a heading and the figures of everyone: the medians of the runs, and their ratio to ours."""
    comparison = results.comparison
    first = next(iter(comparison.figures))
    titles = [
        figure.title + (f", {figure.unit}" if figure.unit else "") for figure in comparison.figures.values()
    ]
    ours = results.median(comparison.contestants[0].name, first)
    rows = [
        _contestant(results, one.name, first, ours)
        for one in comparison.contestants
        if one.name in results.samples
    ]
    notes = [comparison.note] if comparison.note else []
    if results.is_noisy:
        notes.append("the machine was busy with other things: take the ratios, not the figures.")
    told = "".join(f"\n{note[0].upper()}{note[1:]}\n" for note in notes)
    return f"### {comparison.title}\n\n{_table(['', *titles, 'to the first'], rows)}{told}"


def _contestant(results: Results, name: str, first: str, ours: float | None) -> list[str]:
    cells = []
    for key, figure in results.comparison.figures.items():
        value = results.median(name, key)
        cells.append("" if value is None else figure.shown(value))
    mine = results.median(name, first)
    ratio = f"{mine / ours:.2f}" if mine is not None and ours else ""
    return [name, *cells, ratio]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
