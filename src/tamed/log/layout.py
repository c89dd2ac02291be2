"""The formats of a log line, for the workers and the supervisor, which does not import `logging`.

``human`` is for people at a terminal, and ``coloured`` the same in the colour of the level; ``plain`` is for
files and programs, ``json`` for log collectors, and ``bare`` is the message alone, for a log that stores time
and level itself.

Text from applications and clients is escaped, and in ``human`` and ``plain`` the lines after the first are
indented, so that none of them can look like a record.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from tamed._os.text import shown, shown_in_json

__all__ = [
    "COLOURS",
    "Layout",
    "Line",
    "bare",
    "coloured",
    "human",
    "json",
    "lay_out",
    "layout_of",
    "plain",
    "rfc3339",
]

_PLACE = "\ufffc"  # a placeholder for the message
_INDENT = "    "
_LONGEST_FIELD = 1000  # characters of a field that JSON cannot express
COLOURS: Final = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
"""The colours of the levels on a terminal: the parameters of SGR (ECMA-48)."""


class Line(NamedTuple):
    """The content of a line of the log.

    ``time`` is in seconds since the epoch; ``traceback`` has lines of its own.
    """

    time: float
    level: str
    logger: str
    message: str
    pid: int | None = None
    traceback: str = ""
    worker: int | None = None
    fields: Mapping[str, object] = {}


Layout = Callable[[Line], str]


def human(line: Line) -> str:
    """``12:31:05 INFO     fastpoetry: message``, in local time."""
    clock = time.strftime("%H:%M:%S", time.localtime(line.time))
    text = f"{clock} {_mark(line)}{line.level:8} {line.logger}: {line.message}"
    return shown(_with_traceback(text, line), _INDENT)


def _mark(line: Line) -> str:
    return "" if line.worker is None else f"[{line.worker}] "


def coloured(line: Line) -> str:
    """Format a line as ``human`` does, in the colour of its level."""
    text = human(line)
    colour = COLOURS.get(line.level)
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def plain(line: Line) -> str:
    """``2026-11-23T12:31:05.123+01:00 INFO fastpoetry: message``, the time as in ISO 8601."""
    text = f"{rfc3339(line.time)} {_mark(line)}{line.level} {line.logger}: {line.message}"
    return shown(_with_traceback(text, line), _INDENT)


def bare(line: Line) -> str:
    """Format the message alone."""
    return shown(_with_traceback(line.message, line), indent="")


def json(line: Line) -> str:
    """Format one JSON object on one line, whatever the message contains.

    Time, level, logger, message, pid, worker, traceback, and the fields, unless they have one of these names.
    """
    from json import dumps

    known = {
        "time": rfc3339(line.time),
        "level": line.level,
        "logger": line.logger,
        "message": line.message,
        "pid": line.pid,
    }
    if line.worker is not None:
        known["worker"] = line.worker
    if line.traceback:
        known["traceback"] = line.traceback
    if not line.fields:
        return shown_in_json(dumps(known, ensure_ascii=False))
    try:
        text = dumps({**line.fields, **known}, ensure_ascii=False, allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError):  # a key or a value that JSON cannot express
        others = {str(key): _field_text(value) for key, value in line.fields.items()}
        text = dumps({**others, **known}, ensure_ascii=False)
    return shown_in_json(text)


def _field_text(value: object) -> str:
    try:
        return str(value)[:_LONGEST_FIELD]
    except Exception:
        return f"a {type(value).__name__} that cannot be formatted"


_LAYOUTS: dict[str, Layout] = {
    "human": human,
    "coloured": coloured,
    "plain": plain,
    "json": json,
    "bare": bare,
}


def layout_of(name: str) -> Layout:
    """Return the layout of this name."""
    return _LAYOUTS[name]


def lay_out(layout: Layout, line: Line, messages: Iterable[str]) -> list[str]:
    """Format many lines that differ only in their messages."""
    if layout is json:
        return [layout(line._replace(message=message)) for message in messages]
    before, _, after = layout(line._replace(message=_PLACE)).rpartition(_PLACE)
    indent = "" if layout is bare else _INDENT
    return [f"{before}{shown(message, indent)}{after}" for message in messages]


def _with_traceback(text: str, line: Line) -> str:
    return f"{text}\n{line.traceback}" if line.traceback else text


def rfc3339(moment: float) -> str:
    """Return a moment, in seconds since the epoch, as ``2026-11-23T12:31:05.123+01:00``, in local time."""
    return _millisecond(round(moment * 1000), time.timezone)


# At a high rate many lines have the same millisecond, and most others the same second as the line before.
# The zone may change while a process runs (`time.tzset`).


@lru_cache(maxsize=2)
def _millisecond(milliseconds: int, zone: int) -> str:
    day_and_second, offset = _second(milliseconds // 1000, zone)
    return f"{day_and_second}.{milliseconds % 1000:03}{offset}"


@lru_cache(maxsize=2)
def _second(seconds: int, _zone: int) -> tuple[str, str]:
    moment = time.localtime(seconds)
    offset = time.strftime("%z", moment)
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment), f"{offset[:3]}:{offset[3:5]}"
