"""``python -m bench``: measures Tamed beside its peers, and writes the table and the plot of the docs."""

import argparse
import datetime as dt
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.compare import Comparison, Results, complete_pages
from bench.machine import check, machine, versions
from bench.measures import all_comparisons
from bench.plot import plot
from bench.run import run
from bench.table import goals, section

_ROOT = Path(__file__).parents[1]
_DOCS = _ROOT / "docs" / "_bench"
_RAW = _ROOT / "build" / "bench" / "results.json"
_PLOTTED = ("cpu", "cpu-log", "start", "memory", "lines", "reload")


def main() -> None:
    """Run the comparisons that were asked for."""
    check()
    comparisons = all_comparisons()
    arguments = _arguments([one.key for one in comparisons])
    if arguments.list:
        print("\n".join(f"{one.key:20}{one.title}" for one in comparisons))
        return
    chosen = [one for one in comparisons if not arguments.only or _is_chosen(one, arguments.only)]
    begin = time.monotonic()
    everything = [run(one, arguments.runs) for one in chosen]
    seconds = time.monotonic() - begin
    print(_report(everything, arguments.runs, seconds))
    _RAW.write_text(json.dumps({one.comparison.key: one.samples for one in everything}, indent=1))
    for page, results in complete_pages(comparisons, everything).items():
        (_DOCS / f"{page}.md").write_text(_report(results, arguments.runs, seconds))
        plotted = [one for one in results if one.comparison.key in _PLOTTED and one.samples]
        if plotted:
            (_DOCS / f"{page}.svg").write_text(plot(plotted))


def _arguments(keys: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition(": ")[2])
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured")
    parser.add_argument(
        "--only",
        action="append",
        metavar="KEY",
        help="only these, and those whose key begins so; a page of the docs is written if all of it is "
        f"measured. Keys: {', '.join(keys)}",
    )
    parser.add_argument("--list", action="store_true", help="list what there is")
    arguments = parser.parse_args()
    unknown = [key for key in arguments.only or () if not any(one.startswith(key) for one in keys)]
    if unknown:
        sys.exit(f"there is no {unknown[0]!r}; there are {', '.join(keys)}")
    return arguments


def _is_chosen(comparison: Comparison, only: Sequence[str]) -> bool:
    return any(comparison.key.startswith(key) for key in only)


def _report(everything: Sequence[Results], runs: int, seconds: float) -> str:
    command = f"make bench ARGS='{' '.join(sys.argv[1:])}'" if sys.argv[1:] else "make bench"
    today = dt.datetime.now(dt.UTC).date()
    parts = [
        f"Made by `{command}` on {today}, in {seconds / 60:.0f} minutes: {machine()}. {versions()}.",
        f"Figures are medians of {runs} runs. Reloads are measured three times at most, and growth once.",
        goals(everything),
        *(section(one) for one in everything if one.samples),
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
