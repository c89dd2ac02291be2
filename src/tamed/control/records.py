"""Records of instances that remain after their end: the last state, the log and the events.

The daemon's user can write anything into the file of events, so each line is validated, and invalid lines are
skipped.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tamed.control.instances import (
    exists,
    find_instance,
    other_owner,
    status_of_instance,
    trusted_instance,
)
from tamed.errors import MissingInput, TamedError, Unavailable, from_os_error
from tamed.ipc.message import InvalidMessage, parse_message, read_fields, read_text
from tamed.supervisor.plan_file import left_plan, stopped_names
from tamed.supervisor.records import EVENTS_SUFFIX, Event, LastState
from tamed.unix.rundir import RunDirectory

__all__ = ["EventReader", "events_of_instance", "last_state_of", "last_states", "log_of_instance"]

_LONGEST = 128 * 1024  # bytes of an event


def last_state_of(directory: RunDirectory, name: str | None) -> LastState | None:
    """Return the last state of the instance of a name, or without a name, of the only instance that has one.

    None if it runs, or has ended on request. Without a name, None if any instance runs.
    """
    if name is None:
        left = None if directory.running() else LastState.only_one(directory)
    elif "/" in name or (instance := trusted_instance(directory, name)).is_running:
        return None
    else:
        left = LastState.of(instance)
    if left is not None and left.status is None and (log := _log_left(directory, left.name)) is not None:
        return left._replace(log=str(log))
    return left


def last_states(directory: RunDirectory) -> list[LastState]:
    """Return the last states of all instances that ended by themselves, were killed or were stopped."""
    running = {each.name for each in directory.running()}
    left = {each.name: each for each in LastState.all_in(directory) if each.name not in running}
    stopped = {name: LastState.stopped(name) for name in stopped_names(directory) if name not in running}
    return [*(stopped | left).values()]


def log_of_instance(directory: RunDirectory, name: str | None) -> tuple[Path, int | None]:
    """Return an instance's log file, also after its end, and the user who must own it, None for any.

    The owner is for root, who can read files that the daemon's user cannot. Raises MissingInput if there is
    no log file, and as `find_instance` does.
    """
    try:
        instance = find_instance(directory, name)
    except Unavailable:
        ended = last_state_of(directory, name)
        if ended is not None and ended.log:
            return Path(ended.log), other_owner(directory.instance(ended.name).directory)
        left = None if name is None or "/" in name else _log_left(directory, name)
        if left is None:
            raise
        return left, other_owner(left.parent)
    file = status_of_instance(instance)["log"]
    if not file:
        remedy = f"it goes to stderr, syslog or the journal: journalctl -t {instance.name}"
        raise MissingInput(f"{instance.name} has no log file", remedy=remedy)
    return Path(file), other_owner(instance.directory)


def events_of_instance(directory: RunDirectory, name: str | None) -> tuple[Path, int | None]:
    """Return an instance's file of events, also after its end, and the user who must own it, None for any.

    Raises MissingInput if there is none, and as `find_instance` does.
    """
    try:
        instance = find_instance(directory, name)
    except Unavailable:
        ended = last_state_of(directory, name)
        if ended is not None and not ended.log:
            instance = directory.instance(ended.name)
            return instance.directory / f"{instance.name}{EVENTS_SUFFIX}", other_owner(instance.directory)
        log, owner = log_of_instance(directory, name)
        return Path(f"{log}{EVENTS_SUFFIX}"), owner
    if not (file := status_of_instance(instance)["events_file"]):
        raise MissingInput(f"{instance.name} has no file of events", remedy="see its log for the reason")
    return Path(file), other_owner(instance.directory)


def _log_left(directory: RunDirectory, name: str) -> Path | None:
    """Return the log of an instance that was killed or stopped, or None.

    It is the log of its plan, if this user can read the plan, otherwise the latest in the default places.
    """
    try:
        path = left_plan(directory.instance(name)).log.path
    except TamedError:
        from tamed.config.log_plan import default_logs  # lazy import: it loads all settings

        logs = [log for log in default_logs(name, os.environ) if exists(log)]
        return max(logs, key=lambda log: log.stat().st_mtime, default=None)
    return Path(path) if path else None


class EventReader:
    """Reads one file of events. Must be closed.

    ``owner`` is the user who must own the file, None for any. Each method raises a TamedError if the
    file cannot be read.
    """

    def __init__(self, path: Path, owner: int | None) -> None:
        from tamed.log.reader import LogReader  # lazy import: the status of an ended instance has no events

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
            read_fields(event, time=read_text, event=read_text, text=read_text)
        except InvalidMessage:
            continue
        yield event
