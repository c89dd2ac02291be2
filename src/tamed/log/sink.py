"""The destinations of the supervisor's log: a file, its standard error, syslog or the journal.

A sink writes records; it does not raise, and does not wait for long. For a file and standard error the text
of a record is the formatted line: the process that created the record has formatted it.
"""

import os
import select
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tamed._os.identity import Identity
from tamed.log.layout import Line, layout_of
from tamed.log.plan import LogPlan, Sink, parse_address
from tamed.log.record import Record

__all__ = ["StreamSink", "open_sink"]


def open_sink(plan: LogPlan, name: str, owner: Identity | None) -> Sink:
    """Open the destination of a plan.

    ``name`` is the daemon's name, and ``owner`` the user that it will run as. Raises TamedError if it cannot
    be opened.
    """
    match plan.kind:
        case "file":
            from tamed.log.file import LogFile  # lazy import: a log on standard error has none

            return LogFile(Path(plan.path), plan.rotation, owner=owner, notice=_notices(plan.layout))
        case "syslog":
            from tamed.log.syslog import SyslogSender  # lazy import, for the same reason

            return SyslogSender(parse_address(plan.address), name)
        case "journal":
            from tamed.log.journal import JournalSender  # lazy import, for the same reason

            return JournalSender(identifier=name)
        case _:
            return StreamSink(2, _notices(plan.layout))


_CHUNK = 4096  # bytes that a writable pipe accepts at least: PIPE_BUF, pipe(7)
_PATIENCE = 1.0  # seconds


class StreamSink(Sink):
    """Writes lines to a descriptor, and waits for the reader, but not for long.

    The descriptor is not made non-blocking: that is a property of the terminal or pipe itself, which other
    processes use too. If the reader reads nothing for ``patience`` seconds, new lines are lost until it reads
    again; then a line that ``notice`` formats reports their number. A reader that has closed the pipe does
    not stop the daemon.
    """

    takes_origin = False

    def __init__(self, descriptor: int, notice: Callable[[str], bytes], patience: float = _PATIENCE) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._patience = patience
        self._is_stalled = False
        self._rest = b""  # the rest of a partly written line
        self._lost = 0
        self._reported = 0  # the lost lines that were reported
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, records: Sequence[Record]) -> None:
        """Write the texts of records."""
        self.put([record.text + b"\n" for record in records])

    def put(self, lines: list[bytes]) -> None:
        """Write whole lines, or count them as lost."""
        self.housekeep()
        data = b"".join(lines)
        if not self._unreported and not self._rest:
            data = data[self._write(data) :]
            line, newline, data = data.partition(b"\n")  # the first line is written completely
            self._rest = line + newline
        self._lost += data.count(b"\n")

    @property
    def lost(self) -> int:
        """The number of lines that were lost."""
        return self._lost

    @property
    def _unreported(self) -> int:
        return self._lost - self._reported

    def housekeep(self) -> None:
        """Finish a partly written line, and report lost lines, if the reader reads again."""
        if self._rest:
            self._rest = self._rest[self._write(self._rest) :]
        if self._unreported and not self._rest:
            self._rest = self._notice(f"{self._unreported} lines were lost: no process read them")
            self._reported = self._lost
            self._rest = self._rest[self._write(self._rest) :]

    def disown(self) -> None:
        """In a forked child: leave the rest, and the report of lost lines, to the parent."""
        self._rest, self._is_stalled = b"", False
        self._lost = self._reported = 0

    def close(self) -> None:
        """Write what can still be written."""
        self.housekeep()

    def _write(self, data: bytes) -> int:
        """Write as much as the reader takes; return the number of bytes."""
        written = 0
        while written < len(data) and self._has_room():
            try:
                written += os.write(self._descriptor, data[written : written + _CHUNK])
            except BlockingIOError:
                continue
            except OSError:
                return len(data)  # the reader is gone
        return written

    def _has_room(self) -> bool:
        room = bool(self._poll.poll(0 if self._is_stalled else self._patience * 1000))
        self._is_stalled = not room
        return room


def _notices(name: str) -> Callable[[str], bytes]:
    """Return a function that makes a line of the log about the log itself, in the layout of the log."""
    layout = layout_of(name)

    def notice(text: str) -> bytes:
        line = layout(Line(time.time(), "WARNING", "tamed", text, os.getpid()))
        return line.encode(errors="backslashreplace") + b"\n"

    return notice
