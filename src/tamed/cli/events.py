"""The command ``tamed events``: the events of an instance, one a line."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, Final

from tamed._os.text import shown, shown_in_json
from tamed.cli._text import duration, one_line, size
from tamed.cli.instances import directory_of
from tamed.control.events import Event, EventReader
from tamed.control.records import events_of_instance

__all__ = ["event_line", "events"]

_LOOK: Final = 0.2  # seconds between two reads of a file that is followed


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
        print(shown_in_json(json.dumps(event)) if as_json else shown(event_line(event), indent="    "))


def event_line(event: Event) -> str:
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
    if event["event"] != "drain" and (took := _number(event, "took")) is not None:
        yield f"took {duration(took)}"
    if (lived := _number(event, "lived")) is not None:
        yield f"lived {duration(lived)}"
    if (memory := _fact(event, "memory", int)) is not None:
        yield f"at most {size(memory)} in memory"
    if event.get("oom") is True:
        yield "killed by the kernel's OOM killer"


def _fact(event: Event, key: str, kind: type) -> Any:
    value = event.get(key)
    return value if isinstance(value, kind) else None


def _number(event: Event, key: str) -> float | None:
    value = event.get(key)
    return float(value) if isinstance(value, int | float) else None
