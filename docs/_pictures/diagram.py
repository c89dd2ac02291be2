"""Draws the diagrams of the pages from texts: the directive ``{picture} NAME`` takes ``NAME.toml``.

There are two kinds. ``boxes`` are on a grid, with arrows between them; ``lanes`` have spans from one moment
to another, a lane for each process. A picture is part of the page, so its colours are those of the theme.
"""

import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HERE = Path(__file__).parent

WIDTH, MARGIN, LINE, SIZE = 720, 12, 16, 12  # pixels; a character is at most 0.62 of SIZE wide
BOX_HEIGHT, ROW = 56, 96
LANE, SPAN, NAME_WIDTH = 54, 36, 120

STYLE = """
.picture { overflow-x: auto; margin: 1.5rem 0; }
.picture svg { min-width: 640px; width: 100%; height: auto; font: 12px sans-serif; }
.picture text { fill: var(--color-foreground-primary, #111); }
.picture .small { fill: var(--color-foreground-secondary, #555); font-size: 11px; }
.picture rect { fill: var(--color-background-secondary, #f5f6f8); stroke: var(--color-foreground-muted, #777); }
.picture rect.ground { fill: var(--color-background-primary, #fff); stroke: none; }
.picture rect.strong { fill: var(--color-brand-primary, #0a5); fill-opacity: .18; stroke: var(--color-brand-primary, #0a5); }
.picture rect.danger { fill: #d64545; fill-opacity: .18; stroke: #d64545; }
.picture rect.quiet { stroke-dasharray: 4 3; }
.picture path { fill: none; stroke: var(--color-foreground-secondary, #555); stroke-width: 1.3; }
.picture path.head { fill: var(--color-foreground-secondary, #555); stroke: none; }
.picture path.moment { stroke-dasharray: 2 3; }
"""  # noqa: E501 - a rule is a line


def draw(picture: dict[str, Any], name: str) -> str:
    """Return a picture as SVG."""
    parts, height = _boxes(picture) if "boxes" in picture else _lanes(picture)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="{name}-title">\n<title id="{name}-title">{escape(picture["title"])}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _boxes(picture: dict[str, Any]) -> tuple[list[str], int]:
    places = {name: _place(box) for name, box in picture["boxes"].items()}
    parts = [part for arrow in picture["arrows"] for part in _arrow(arrow, places)]
    for name, box in picture["boxes"].items():
        x, y, width = places[name]
        parts.append(_rectangle(x, y, width, BOX_HEIGHT, box.get("kind", "")))
        parts += _lines(box["text"], x + width / 2, y + BOX_HEIGHT / 2)
    return parts, round(max(y for _, y, _ in places.values())) + BOX_HEIGHT + MARGIN


def _place(box: dict[str, Any]) -> tuple[float, float, float]:
    """Return the left edge, the upper edge and the width: columns are parts of the whole width."""
    left, row = box["at"]
    x = MARGIN + left * (WIDTH - 2 * MARGIN)
    return x, MARGIN + row * ROW, box["width"] * (WIDTH - 2 * MARGIN)


def _arrow(arrow: dict[str, Any], places: dict[str, tuple[float, float, float]]) -> Iterator[str]:
    """Draw from edge to edge: sideways in a row, else down or up, ``at`` a part of the narrower box."""
    (x, y, width), (to_x, to_y, to_width) = places[arrow["from"]], places[arrow["to"]]
    text = arrow.get("text", "")
    if y == to_y:
        is_right = to_x > x
        start, end = (x + width, to_x) if is_right else (x, to_x + to_width)
        level = y + BOX_HEIGHT * arrow.get("at", 0.5)
        yield f'<path d="M{start:.0f} {level:.0f}H{end:.0f}"/>'
        yield _head(end, level, 6 if is_right else -6, 0)
        yield _text((start + end) / 2, level - 6, text, "small")
    else:
        narrow_x, narrow_width = min((x, width), (to_x, to_width), key=lambda each: each[1])
        column = narrow_x + narrow_width * arrow.get("at", 0.5)
        is_down = to_y > y
        start, end = (y + BOX_HEIGHT, to_y) if is_down else (y, to_y + BOX_HEIGHT)
        yield f'<path d="M{column:.0f} {start:.0f}V{end:.0f}"/>'
        yield _head(column, end, 0, 6 if is_down else -6)
        yield _text(column + 6, (start + end) / 2 + 4, text, "small", "start")


def _head(x: float, y: float, across: int, down: int) -> str:
    """Return the head of an arrow that ends here, in this direction."""
    side_x, side_y = (0, 4) if across else (4, 0)
    return (
        f'<path class="head" d="M{x:.0f} {y:.0f}L{x - across - side_x:.0f} {y - down - side_y:.0f}'
        f'L{x - across + side_x:.0f} {y - down + side_y:.0f}Z"/>'
    )


def _lanes(picture: dict[str, Any]) -> tuple[list[str], int]:
    def at(moment: float) -> float:
        return NAME_WIDTH + moment * (WIDTH - MARGIN - NAME_WIDTH)

    top = 2 * MARGIN + LINE
    bottom = top + LANE * len(picture["lanes"])
    parts = []
    for moment in picture["moments"]:
        x = at(moment["at"])
        anchor = moment.get("anchor", "middle")
        parts.append(f'<path class="moment" d="M{x:.0f} {top - 6}V{bottom}"/>')
        parts.append(_text(x, top - 12, moment["text"], "small", anchor))
    for number, lane in enumerate(picture["lanes"]):
        y = top + LANE * number + (LANE - SPAN) / 2
        parts += _lines(lane["name"].split("\n"), 0, y + SPAN / 2, "start")
        for span in lane["spans"]:
            start, end = at(span["from"]), at(span["to"])
            parts.append(_rectangle(start, y, end - start, SPAN, span.get("kind", "")))
            parts += _lines(span["text"].split("\n"), (start + end) / 2, y + SPAN / 2)
    return parts, bottom + MARGIN


def _rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    size = f'width="{width:.0f}" height="{height}"'
    place = f'x="{x:.0f}" y="{y:.0f}" {size} rx="6"'
    return f'<rect class="ground" {place}/><rect class="{kind}" {place}/>'


def _lines(lines: list[str], x: float, middle: float, anchor: str = "middle") -> list[str]:
    first = middle - LINE * (len(lines) - 1) / 2 + 4
    return [
        _text(x, first + LINE * number, line, "" if number == 0 else "small", anchor)
        for number, line in enumerate(lines)
    ]


def _text(x: float, y: float, text: str, kind: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'


class Picture(SphinxDirective):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[Node]:
        """Put the picture into the page, to be drawn again when its text changes."""
        name = self.arguments[0]
        source = HERE / f"{name}.toml"
        for dependency in (source, Path(__file__)):
            self.env.note_dependency(str(dependency))
        drawn = draw(tomllib.loads(source.read_text("utf-8")), name)
        html = f'<style>{STYLE}</style><div class="picture">{drawn}</div>'
        return [nodes.raw("", html, format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True}
