"""What a daemon records beside its log: its events, the counts of some, and its last state.

An event is the start, a death or a restart of a worker, a reload, scaling, an upgrade, or a drain. Each is
one JSON object on a line of a file beside the log, ``LOG.events``, of which one old file is kept. A daemon
without a log file has the file in its run directory, and removes it when it ends on request. Other processes
of the user read the file; the supervisor only writes it. It is written as a log is (`tamed.log.file`): the
file is open, no failure is raised, and what cannot be written is counted. The last events are in memory too.
They are part of the status, and an upgrade passes them on; so are the counts, which the operations endpoint
shows.

The last state is the time of the end, its reason, the exit status, and the path of the log. A supervisor that
ends without a request writes it into a small file beside its plan, which the next start removes. A supervisor
that was killed writes no such file, but leaves its pid file.
"""

import json
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tamed._os.identity import Identity
from tamed._os.trust import TO_CREATE, TO_READ
from tamed.errors import ConfigurationError, TamedError
from tamed.ipc.handoff import Data
from tamed.ipc.message import InvalidMessage, encode_message, parse_message, read_number, read_text
from tamed.log.file import LogFile
from tamed.log.layout import rfc3339
from tamed.log.plan import LogPlan, Rotation
from tamed.supervisor.plan import Plan
from tamed.unix.rundir import Instance, RunDirectory

__all__ = ["EVENTS_SUFFIX", "Event", "EventLog", "Figures", "LastState", "events_path"]

EVENTS_SUFFIX: Final = ".events"
"""The suffix that makes the path of the events from that of the log."""

Event = dict[str, Any]
"""``time`` (RFC 3339), ``event`` (the kind), ``text`` (one sentence), and the facts of this kind."""

_ROTATION: Final = Rotation(size=512 * 1024, keep=1)
_RECENT: Final = 50  # events in memory
_LONGEST: Final = 32 * 1024  # characters of an event
_LONGEST_STATE: Final = 65536  # bytes of a last state, and
_LONGEST_ERROR: Final = 4096  # characters of its reason
_KILLED: Final = "it was killed, or the system crashed: it left its pid file behind"
_OK, _FAILED = "ok", "failed"
_USUAL = ("wanted", "application", "fault", "status", "stuck", "SIGABRT", "SIGKILL", "SIGSEGV")
"""Reasons that start at zero: Prometheus sees no increase in a series whose first value is one."""


def events_path(plan: Plan, log: LogPlan) -> str:
    """Return the path of the events of a daemon that logs to ``log``; empty if it has no place for them."""
    if log.kind == "file":
        return f"{log.path}{EVENTS_SUFFIX}"
    return str(Path(plan.control).with_name(f"{plan.name}{EVENTS_SUFFIX}")) if plan.control else ""


class EventLog:
    """Records events. No method raises.

    ``recent`` are the last events, the oldest first, and ``count`` is how many there have been. ``path`` is
    the file, empty if there is none. ``added`` is called with each event. ``clock`` returns the seconds since
    the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.recent: deque[Event] = deque(maxlen=_RECENT)
        self.count = 0
        self.path = ""
        self.added: Callable[[Event], object] = lambda _: None
        self._clock = clock
        self._file: LogFile | None = None
        self._is_temporary = False

    def open(self, path: str, owner: Identity | None = None, *, is_temporary: bool = False) -> str:
        """Write to this file from now on; return the reason if that is impossible, else an empty text.

        ``owner`` is the user of the daemon, see `LogFile`. A temporary file is removed when it is closed.
        """
        if path == self.path:
            return ""
        self.close()
        self._is_temporary = is_temporary
        if not path:
            return ""
        try:
            self._file = LogFile(
                Path(path),
                _ROTATION,
                owner=owner,
                notice=self._notice,
            )
        except TamedError as error:
            return f"events are not recorded: {error}"
        self.path = path
        return ""

    def add(self, kind: str, text: str, /, **facts: Any) -> None:
        """Record an event. A fact that is None is left out."""
        event = self._made(kind, text, facts)
        self.recent.append(event)
        self.count += 1
        if self._file is not None:
            self._file.append([_encode(event)])
        self.added(event)

    def since(self, count: int) -> list[Event]:
        """Return the kept events after the first ``count``, the oldest first."""
        first = self.count - len(self.recent)
        return [event for number, event in enumerate(self.recent, first) if number >= count]

    def housekeep(self) -> None:
        """Create the file again if it was removed. Must be called about once a second."""
        if self._file is not None:
            self._file.housekeep()

    def export(self) -> list[Event]:
        """Return the last events, for the next program."""
        return list(self.recent)

    def resume(self, left: Iterable[Event]) -> None:
        """Resume from the events of the previous program."""
        self.recent.extend(left)
        self.count = len(self.recent)

    def close(self) -> None:
        """Close the file, and remove a temporary one. Idempotent."""
        if self._file is not None:
            self._file.close()
            if self._is_temporary:
                for path in (self.path, f"{self.path}.1"):
                    with suppress(OSError):
                        Path(path).unlink()
        self._file, self.path = None, ""

    def keep(self) -> None:
        """Keep a temporary file when it is closed, because the daemon has failed."""
        self._is_temporary = False

    def _made(self, kind: str, text: str, facts: dict[str, Any]) -> Event:
        known = {key: value for key, value in facts.items() if value is not None}
        return {"time": rfc3339(self._clock()), "event": kind, "text": text, **known}

    def _notice(self, text: str) -> bytes:
        return _encode(self._made("events", text, {}))


def _encode(event: Event) -> bytes:
    line = json.dumps(event)
    if len(line) > _LONGEST:
        line = json.dumps({key: event[key][: _LONGEST // 16] for key in ("time", "event", "text")})
    return line.encode() + b"\n"


class Figures:
    """Counts from the start of the daemon, also over upgrades.

    ``ends`` counts ended workers by reason (see `Worker.reason_of_end`). ``reloads`` counts reloads by
    result, ``ok`` or ``failed``; ``reload_seconds`` is how long all of them took, and ``last_reload`` how
    long the last one.
    """

    def __init__(self) -> None:
        self.ends = dict.fromkeys(_USUAL, 0)
        self.reloads = {_OK: 0, _FAILED: 0}
        self.reload_seconds = {_OK: 0.0, _FAILED: 0.0}
        self.last_reload: float | None = None

    def worker_ended(self, reason: str) -> None:
        """Count an ended worker."""
        self.ends[reason] = self.ends.get(reason, 0) + 1

    def reloaded(self, seconds: float, *, failed: bool) -> None:
        """Count a reload."""
        result = _FAILED if failed else _OK
        self.reloads[result] += 1
        self.reload_seconds[result] += seconds
        self.last_reload = seconds

    def export(self) -> Data:
        """Return this as data."""
        return dict(vars(self))

    def resume(self, left: Data) -> None:
        """Resume from the data of the previous program."""
        vars(self).update(left)


class LastState(NamedTuple):
    """How an instance has ended.

    ``ended_at`` is a time in the format of RFC 3339. It and ``status``, the exit status, are None for an
    instance that was killed. ``log`` is the path of its log file, empty if it had none.
    """

    name: str
    error: str
    status: int | None
    ended_at: str | None
    log: str

    @property
    def state(self) -> str:
        """``ended`` by its own choice with status 0, ``stopped`` on request, and ``failed`` otherwise."""
        if not self.error:
            return "stopped"
        return "ended" if self.status == 0 else "failed"

    @classmethod
    def now(cls, name: str, error: str, status: int, log: str) -> Self:
        """Return the state of an instance that ends now."""
        return cls(name, error[:_LONGEST_ERROR], status, rfc3339(time.time()), log)

    @classmethod
    def of(cls, instance: Instance) -> Self | None:
        """Return how an instance that does not run has ended; None if that is unknown, or was requested."""
        data = _content(_path(instance))
        if data:
            with suppress(InvalidMessage):
                left = parse_message(data, _LONGEST_STATE)
                error, ended_at, log = (read_text(left, key) for key in ("error", "ended_at", "log"))
                return cls(instance.name, error, read_number(left, "status", most=255), ended_at, log)
        if instance.pid_file.is_file():
            return cls(instance.name, _KILLED, None, None, "")
        return None

    @classmethod
    def stopped(cls, name: str) -> Self:
        """Return the state of an instance that was stopped on request."""
        return cls(name, "", None, None, "")

    @classmethod
    def all_in(cls, directory: RunDirectory) -> list[Self]:
        """Return the last states in a run directory."""
        found = []
        with suppress(OSError):
            for folder in directory.path.iterdir():
                with suppress(ConfigurationError):
                    instance = directory.instance(folder.name)
                    found.append(cls.of(instance) if instance.is_trusted else None)
        return [state for state in found if state is not None]

    @classmethod
    def only_one(cls, directory: RunDirectory) -> Self | None:
        """Return the last state in a run directory; None if no instance has one, or several have."""
        states = cls.all_in(directory)
        return states[0] if len(states) == 1 else None

    def leave(self, instance: Instance) -> None:
        """Write it into the instance's folder; do nothing if that folder is gone."""
        left = {"error": self.error, "status": self.status, "ended_at": self.ended_at, "log": self.log}
        self.forget(instance)
        with suppress(OSError), os.fdopen(os.open(_path(instance), TO_CREATE, 0o600), "wb") as file:
            file.write(encode_message(left))

    @staticmethod
    def forget(instance: Instance) -> None:
        """Remove the file, because the instance runs again."""
        with suppress(OSError):
            _path(instance).unlink()


def _path(instance: Instance) -> Path:
    return instance.directory / f"{instance.name}.failed"


def _content(path: Path) -> bytes:
    """Read a small regular file. The owner of the folder could have put anything there."""
    try:
        with os.fdopen(os.open(path, TO_READ), "rb") as file:
            is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return file.read(_LONGEST_STATE) if is_regular else b""
    except OSError:
        return b""
