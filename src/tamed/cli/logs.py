"""The commands ``logs`` and ``events``: what instances have written, and what has happened to them."""

import json
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from functools import partial
from heapq import merge
from pathlib import Path
from types import UnionType
from typing import Any, Final

from tamed._os.text import shown, shown_in_json
from tamed.cli._text import colours, duration, one_line, shown_lines, size
from tamed.cli.instances import directory_of, ending
from tamed.control.records import (
    EventReader,
    events_of_instance,
    last_state_of,
    last_states,
    log_of_instance,
)
from tamed.errors import TamedError, UsageError, from_os_error
from tamed.log.layout import COLOURS
from tamed.log.reader import LogReader
from tamed.log.search import LEVELS, Entry, EntryReader, Filter, moment_of
from tamed.supervisor.records import Event
from tamed.unix.rundir import RunDirectory

__all__ = ["events", "logs"]

_LOOK: Final = 0.2  # seconds between two reads of a file that is followed


def logs(
    *,
    name: str | None,
    rundir: str | None,
    lines: int,
    follow: bool,
    every: bool,
    level: str | None,
    grep: str | None,
    since: str | None,
    worker: int | None,
    service: str | None,
    as_json: bool,
) -> None:
    """Show the last records of an instance's log, or of all logs."""
    directory = directory_of(rundir)
    wanted = Filter(
        None if level is None else LEVELS[level],
        _pattern(grep),
        None if since is None else _since(since, time.time()),
        worker,
        service or "",
    )
    with ExitStack() as opened:
        sources = [
            opened.enter_context(closing(_Source(path, owner, title, wanted)))
            for title, path, owner in _files(directory, name, every)
        ]
        put = partial(_print, as_json=as_json, is_coloured=colours())
        for source, entry in deque(merge(*(each.last(lines) for each in sources), key=_time), maxlen=lines):
            put(source.title, entry)
        while follow:
            for source in sources:
                for entry in source.more():
                    put(source.title, entry)
            sys.stdout.flush()
            time.sleep(_LOOK)


def _files(directory: RunDirectory, name: str | None, every: bool) -> Iterator[tuple[str, Path, int | None]]:
    """Yield a title, the path and the owner of each log; the title is empty if there is only one."""
    if not every:
        if (left := last_state_of(directory, name)) is not None:
            print(shown_lines(ending(left)), file=sys.stderr)
        yield "", *log_of_instance(directory, name)
        return
    if name is not None:
        raise UsageError("--all", f"{name} is named, too", "use one or the other")
    names = {each.name for each in directory.running()} | {each.name for each in last_states(directory)}
    for title in sorted(names):
        try:
            yield title, *log_of_instance(directory, title)
        except TamedError as error:
            print(f"tamed: {shown(str(error))}", file=sys.stderr)


class _Source:
    """One log, with its filter."""

    def __init__(self, path: Path, owner: int | None, title: str, wanted: Filter) -> None:
        self.title = title
        self._path = path
        self._wanted = wanted
        self._entries = EntryReader()
        with self._reading():
            self._reader = LogReader(path, owner)

    def close(self) -> None:
        self._reader.close()

    def last(self, count: int) -> "Iterator[tuple[_Source, Entry]]":
        """Yield the last matching records, also of the old files."""
        with self._reading():
            if self._wanted == Filter():
                found: Iterable[Entry] = self._tail(count)
            else:
                lines = self._reader.every(self._wanted.since)
                found = deque(self._wanted.apply(self._joined(lines)), maxlen=count)
        latest: float | None = None
        for entry in found:
            latest = latest if entry.time is None else entry.time
            yield self, entry._replace(time=latest)

    def _tail(self, count: int) -> list[Entry]:
        """Return the last records. A record may have many lines, so ever more lines are read."""
        wanted = count
        while True:
            lines = self._reader.last(wanted)
            entries = list(self._joined(lines))
            if len(entries) > count or len(lines) < wanted or not count:
                return entries[len(entries) - count :] if count else []
            wanted = 2 * wanted + 1

    def more(self) -> Iterator[Entry]:
        """Yield the matching records written since the last call."""
        with self._reading():
            yield from self._wanted.apply(self._joined(self._reader.more()))

    def _joined(self, lines: Iterable[bytes]) -> Iterator[Entry]:
        yield from self._entries.feed(lines)
        yield from self._entries.flush()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise from_os_error(f"cannot read the log {self._path}", error) from error


def _time(item: tuple[_Source, Entry]) -> float:
    return item[1].time or 0.0


def _print(title: str, entry: Entry, *, as_json: bool, is_coloured: bool) -> None:
    """Print a record, and its instance if it has a title.

    It is escaped: Tamed escapes what it logs, but other programs may write to the file.
    """
    if as_json:
        fields = {"instance": title, **entry.fields} if title else entry.fields
        print(shown_in_json(json.dumps(fields, ensure_ascii=False)))
        return
    prefix = f"{title} | " if title else ""
    text = "\n".join(f"{prefix}{shown(line)}" for line in entry.text.split("\n"))
    colour = COLOURS.get(entry.level) if is_coloured else None
    print(f"\x1b[{colour}m{text}\x1b[0m" if colour else text)


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"--grep {text!r}", f"it is no regular expression: {error}") from error


def _since(text: str, now: float) -> float:
    """Return the moment that a text names: a duration before now, a time of today, or a date with a time."""
    from tamed.plugins.values import Duration  # lazy import: few commands use --since

    try:
        return now - Duration.parse(text.removesuffix(" ago"))
    except ValueError:
        today = datetime.fromtimestamp(now).astimezone().date().isoformat()
    moment = moment_of(text)
    moment = moment_of(f"{today}T{text}") if moment is None else moment
    if moment is None:
        expected = "expected 10m ago, 14:30, 2026-11-23 or 2026-11-23T14:30:00"
        raise UsageError(f"--since {text!r}", expected)
    return moment


def events(name: str | None, rundir: str | None, lines: int, follow: bool, as_json: bool) -> None:
    """Show the last events of an instance."""
    path, owner = events_of_instance(directory_of(rundir), name)
    with closing(EventReader(path, owner)) as reader:
        _put(reader.last(lines), as_json)
        while follow:
            _put(reader.more(), as_json)
            time.sleep(_LOOK)


def _put(found: Iterable[Event], as_json: bool) -> None:
    for event in found:
        print(shown_in_json(json.dumps(event)) if as_json else shown(_event_line(event), indent="    "))


def _event_line(event: Event) -> str:
    """Return an event as one line, its time with seconds."""
    moment = event["time"][:19].replace("T", " ")
    facts = ", ".join(_facts(event))
    return f"{moment}  {event['event']:8} {one_line(event['text'])}" + (
        f" ({one_line(facts)})" if facts else ""
    )


def _facts(event: Event) -> Iterator[str]:
    """Yield the facts of an event that its text does not state."""
    if (asked := _fact(event, "asked", str)) is not None:
        yield f"requested by {asked}"
    if (changed := _fact(event, "changed", list)) is not None:
        yield f"changed: {', '.join(map(str, changed)) or 'no setting'}"
    if event["event"] == "scale" and (before := _fact(event, "from", int)) is not None:
        yield f"{before} before"
    if event["event"] != "drain" and (took := _fact(event, "took", int | float)) is not None:
        yield f"took {duration(took)}"
    if (lived := _fact(event, "lived", int | float)) is not None:
        yield f"lived {duration(lived)}"
    if (memory := _fact(event, "memory", int)) is not None:
        yield f"at most {size(memory)} in memory"
    if event.get("oom") is True:
        yield "killed by the kernel's OOM killer"


def _fact(event: Event, key: str, kind: type | UnionType) -> Any:
    value = event.get(key)
    return value if isinstance(value, kind) else None
