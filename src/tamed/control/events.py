"""Reading the events of a daemon, which `tamed.supervisor.events` writes: the last ones, and those that come.

The daemon's user can write anything into the file, so each line is checked, and what is no event is left out.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tamed.errors import from_os_error
from tamed.ipc.message import InvalidMessage, parse_message, read_text
from tamed.log.reader import LogReader

__all__ = ["Event", "EventReader"]

Event = dict[str, Any]
"""An event: ``time``, ``event`` and ``text`` are texts; other fields are of any type."""

_LONGEST = 128 * 1024  # bytes of an event


class EventReader:
    """Reads one file of events. Must be closed.

    ``owner`` is the user who must own the file, None for any. A file that cannot be read raises a TamedError.
    """

    def __init__(self, path: Path, owner: int | None) -> None:
        self._path = path
        try:
            self._reader = LogReader(path, owner)
        except OSError as error:
            raise from_os_error(f"cannot read the events {path}", error) from error

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def last(self, count: int) -> list[Event]:
        """Return the last events, also of the old file, and go on behind them."""
        return self._events(self._reader.last(count))

    def more(self) -> list[Event]:
        """Return the events that were written since the last one that was read."""
        return self._events(self._reader.more())

    def _events(self, lines: Iterable[bytes]) -> list[Event]:
        try:
            return list(_valid(lines))
        except OSError as error:
            raise from_os_error(f"cannot read the events {self._path}", error) from error


def _valid(lines: Iterable[bytes]) -> Iterator[Event]:
    for line in lines:
        try:
            event = parse_message(line, _LONGEST)
            for key in ("time", "event", "text"):
                read_text(event, key)
        except InvalidMessage:
            continue
        yield event
