"""The results as a picture: a bar for each contestant, in SVG."""

from collections.abc import Iterable
from html import escape

from bench.compare import Results

__all__ = ["plot"]

_WIDTH, _NAMES, _NUMBERS = 720, 210, 90
_BAR, _STEP, _HEAD, _GAP = 14, 20, 30, 16

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600 }
.ours { fill: #2a6f97 }
.theirs { fill: #a9b4bd }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .theirs { fill: #69757f } }
"""


def plot(everything: Iterable[Results]) -> str:
    """Return a picture with a chart for each comparison, of the first figure, the least above."""
    charts, top = [], 0
    for results in everything:
        chart, height = _chart(results, top)
        charts.append(chart)
        top += height
    size = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{_STYLE}</style>\n{"".join(charts)}</svg>\n'
    )


def _chart(results: Results, top: int) -> tuple[str, int]:
    key, figure = next(iter(results.comparison.figures.items()))
    medians = {name: results.median(name, key) or 0.0 for name in results.samples}
    largest = max(medians.values(), default=0.0) or 1.0
    unit = f" ({figure.title}, {figure.unit})" if figure.unit else f" ({figure.title})"
    parts = [_text(0, top + 18, results.comparison.title + unit, "title")]
    y = top + _HEAD
    for name, value in sorted(medians.items(), key=lambda item: item[1]):
        width = (_WIDTH - _NAMES - _NUMBERS) * value / largest
        kind = "ours" if name.startswith("tamed") else "theirs"
        parts.append(_text(0, y + 11, name))
        parts.append(f'<rect class="{kind}" x="{_NAMES}" y="{y}" width="{width:.1f}" height="{_BAR}"/>\n')
        parts.append(_text(_NAMES + width + 6, y + 11, figure.shown(value)))
        y += _STEP
    return "".join(parts), y + _GAP - top


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y}">{escape(text)}</text>\n'
