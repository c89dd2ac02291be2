"""Texts of the commands for people: tables, durations, sizes and colours. Text of others is escaped."""

from __future__ import annotations

import os
import sys

from tamed._os.text import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Final

__all__ = ["cell", "colours", "duration", "one_line", "shown_lines", "size", "table", "uptime"]

_WIDEST: Final = 80  # characters of a cell
_SECONDS: Final = 100.0  # from here on, a duration is shown as a time on a clock


def shown_lines(lines: Iterable[str]) -> str:
    """Return lines as printed: a line break inside one is shown so that it cannot imitate another line."""
    return "\n".join(shown(line, indent="    ") for line in lines)


def cell(text: str) -> str:
    """Return a text of a worker on one line, shortened."""
    cut = text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..."
    return one_line(cut)


def one_line(text: str) -> str:
    r"""Return a text with its line breaks shown as ``\n``."""
    return text.replace("\n", "\\n")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: columns as wide as their widest cell, two spaces apart."""
    rows = [[shown(each) for each in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  ".join(each.ljust(width) for each, width in zip(row, widths, strict=True)).rstrip()


def uptime(seconds: float) -> str:
    """Return seconds as ``01:02:03``, with the days before it if there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02}:{minutes:02}:{rest:02}" if days else f"{hours:02}:{minutes:02}:{rest:02}"


def duration(seconds: float) -> str:
    """Return seconds with the digits that matter: ``7 ms``, ``1.2 s``, ``00:03:20``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < _SECONDS else uptime(seconds)


def size(count: int | None) -> str:
    """Return bytes as ``12.3 MB``; empty if they are unknown."""
    return "" if count is None else f"{count / 1e6:.1f} MB"


def colours() -> bool:
    """Return whether to print in colours: on a terminal, unless ``NO_COLOR`` is set (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
