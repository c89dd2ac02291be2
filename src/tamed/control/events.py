"""Reader for the events file of a daemon, which `tamed.supervisor.events` writes.

The daemon's user can write anything into the file, so each line is validated, and invalid lines are skipped.
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

    ``owner`` is the user who must own the file, None for any. Each method raises a TamedError if the file cannot be read.
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
        """Return the last ``count`` events, including the rotated file; `more` continues after them."""
        return self._events(self._reader.last(count))

    def more(self) -> list[Event]:
        """Return the events written since the last call."""
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
