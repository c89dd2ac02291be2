"""The records of a log file: joining and parsing their lines, and filtering them.

In the formats ``plain`` and ``human`` a line that begins with a space continues the record before it; in
``json`` each line is a record. Other programs may write to the file too: such a line is a record without a
time and a level, and JSON of any shape, size or depth may be in it.
"""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

__all__ = ["LEVELS", "Entry", "EntryReader", "Filter", "moment_of"]

LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
"""The numbers of the levels, as in `logging`."""

_HEAD: Final = re.compile(
    r"(?:(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d)|\d\d:\d\d:\d\d) "
    r"(?:\[(?P<worker>\d{1,9})\] )?(?P<level>[A-Z]+|Level \d{1,9}) +(?P<logger>[^:]*): (?P<message>.*)"
)
_INDENT: Final = "    "
_MOST_LINES: Final = 10_000  # of one record; the rest is another one
_LONGEST: Final = 1 << 20  # bytes of a line; the rest is another one


class Entry(NamedTuple):
    """One record of a log: ``text`` has all its lines; the other fields are parsed from the first line.

    ``time`` is in seconds since the epoch, None if unknown. ``level`` is a name, empty if unknown.
    ``fields`` is the record in the shape of the format ``json``.
    """

    text: str
    time: float | None = None
    level: str = ""
    logger: str = ""
    worker: int | None = None
    service: str = ""
    fields: dict[str, Any] = {}  # noqa: RUF012 - never changed


class EntryReader:
    """Joins lines to records. The last record is kept until it is complete, or until `flush`."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._rest = b""  # the beginning of an incomplete line

    def feed(self, pieces: Iterable[bytes]) -> Iterator[Entry]:
        """Yield the records that are complete with these pieces of a file, wherever it was cut."""
        for piece in pieces:
            *lines, self._rest = (self._rest + piece).split(b"\n")
            if len(self._rest) >= _LONGEST:
                lines.append(self._rest)
                self._rest = b""
            for data in lines:
                line = data.decode(errors="backslashreplace")
                if not line.startswith(" ") or len(self._lines) >= _MOST_LINES:
                    yield from self.flush()
                self._lines.append(line)

    def flush(self) -> Iterator[Entry]:
        """Yield the record whose lines have been read, if there is one."""
        if self._lines:
            lines, self._lines = self._lines, []
            yield _entry(lines)


def _entry(lines: list[str]) -> Entry:
    text = "\n".join(lines)
    if lines[0].startswith("{") and (fields := _object(text)) is not None:
        return _from_fields(text, fields)
    found = _HEAD.fullmatch(lines[0])
    if found is None:
        return Entry(text, fields={"message": text})
    message, *others = found["message"], *(line.removeprefix(_INDENT) for line in lines[1:])
    worker = None if found["worker"] is None else int(found["worker"])
    fields = {
        "time": found["time"],
        "level": found["level"],
        "logger": found["logger"],
        "message": "\n".join([message, *others]),
        "worker": worker,
    }
    known = {key: value for key, value in fields.items() if value is not None}
    return Entry(text, moment_of(found["time"] or ""), found["level"], found["logger"], worker, fields=known)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _from_fields(text: str, fields: dict[str, Any]) -> Entry:
    level, logger, service, moment = (
        value if isinstance(value := fields.get(key), str) else ""
        for key in ("level", "logger", "service", "time")
    )
    worker = fields.get("worker")
    number = worker if isinstance(worker, int) and not isinstance(worker, bool) else None
    return Entry(text, moment_of(moment), level, logger, number, service, fields)


def moment_of(text: str) -> float | None:
    """Return a moment in RFC 3339 as seconds since the epoch, None for any other text."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


class Filter(NamedTuple):
    """The conditions for records to show, all of which must hold; None or empty means no condition.

    ``level`` is the number of the lowest level. ``since`` is in seconds since the epoch; a record without a
    time has that of the one before it. ``service`` is the path of a service, as the format ``json`` has it,
    or the name of a logger; what is below it matches too.
    """

    level: int | None = None
    pattern: re.Pattern[str] | None = None
    since: float | None = None
    worker: int | None = None
    service: str = ""

    def apply(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the matching records."""
        latest: float | None = None
        for entry in entries:
            latest = latest if entry.time is None else entry.time
            if self._matches(entry, latest):
                yield entry

    def _matches(self, entry: Entry, time: float | None) -> bool:
        if self.level is not None and _number(entry.level) < self.level:
            return False
        if self.since is not None and time is not None and time < self.since:
            return False
        if self.worker is not None and entry.worker != self.worker:
            return False
        if self.service and not (
            _is_in(entry.service, self.service, "/") or _is_in(entry.logger, self.service, ".")
        ):
            return False
        return self.pattern is None or self.pattern.search(entry.text) is not None


def _number(level: str) -> int:
    if level.startswith("Level "):
        return int(level.removeprefix("Level "))
    return LEVELS.get(level, 0)


def _is_in(name: str, above: str, separator: str) -> bool:
    return name == above or name.startswith(above + separator)
