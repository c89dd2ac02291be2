"""The destinations of the supervisor's log: a file, its standard error, syslog or the journal.

A sink writes records; it does not raise, and does not wait for long. For a file and standard error the text
of a record is the formatted line: the process that created the record has formatted it.
"""

import os
import select
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tamed._os.identity import Identity
from tamed.log.layout import Line, layout_of
from tamed.log.plan import LogPlan, parse_address
from tamed.log.record import Record

if TYPE_CHECKING:  # at run time, a destination is loaded when it is opened
    from tamed.log.journal import JournalSender
    from tamed.log.syslog import SyslogSender

__all__ = ["Sink", "StreamWriter", "open_sink"]


class Sink(Protocol):
    """A destination of the log.

    ``takes_origin`` is whether it uses the origins of records.
    """

    takes_origin: bool

    @property
    def lost(self) -> int:
        """The number of lines lost since it was opened."""

    @property
    def trouble(self) -> str:
        """A sentence about the current failures; empty if there are none."""

    def write(self, records: Sequence[Record]) -> None:
        """Write records, in order."""

    def reopen(self) -> str:
        """Open the file again, because it was renamed; return the reason of a failure, or an empty text."""

    def housekeep(self) -> None:
        """Do the periodic work; to be called about once a second."""

    @property
    def child(self) -> int:
        """The pid of the sink's running child; 0 if there is none."""

    def child_ended(self, pid: int, status: int) -> bool:
        """Finish a child that was reaped with this wait status; return False if it is not the sink's."""

    def disown(self) -> None:
        """In a forked child: only write, and leave rotation and the like to the parent."""

    def export(self) -> list[Any]:
        """Return the loss that the next program has to report, as plain data."""

    def resume(self, left: Sequence[Any]) -> None:
        """Add the loss that the previous program had yet to report."""

    def close(self) -> None:
        """Write what can still be written, and close the destination."""


def open_sink(plan: LogPlan, name: str, owner: Identity | None) -> Sink:
    """Open the destination of a plan.

    ``name`` is the daemon's name, and ``owner`` the user that it will run as. Raises TamedError if it cannot
    be opened.
    """
    match plan.kind:
        case "file":
            from tamed.log.file import FileSink  # lazy import: a log on standard error has none

            notice = _NoticeFormat(plan.layout)
            return FileSink(Path(plan.path), plan.rotation, owner=owner, notice=notice)
        case "syslog":
            return _syslog_sink(plan.address, name)
        case "journal":
            return _journal_sink(name)
        case _:
            return _StreamSink(plan)


class _Sink:
    """The defaults for a sink without a file."""

    child = 0
    takes_origin = True
    trouble = ""

    def reopen(self) -> str:
        return ""

    def child_ended(self, pid: int, status: int) -> bool:
        return False

    def export(self) -> list[Any]:
        return []

    def resume(self, left: Sequence[Any]) -> None:
        return


class _StreamSink(_Sink):
    takes_origin = False

    def __init__(self, plan: LogPlan) -> None:
        self._notice = _NoticeFormat(plan.layout)
        self._writer = StreamWriter(2, self._notice)

    @property
    def lost(self) -> int:
        return self._writer.lost

    def housekeep(self) -> None:
        self._writer.housekeep()

    def disown(self) -> None:
        self._writer = StreamWriter(2, self._notice)

    def write(self, records: Sequence[Record]) -> None:
        self._writer.write([record.text + b"\n" for record in records])

    def close(self) -> None:
        self._writer.housekeep()


_CHUNK = 4096  # bytes that a writable pipe accepts at least: PIPE_BUF, pipe(7)
_PATIENCE = 1.0  # seconds


class StreamWriter:
    """Writes lines to a descriptor, and waits for the reader, but not for long.

    The descriptor is not made non-blocking: that is a property of the terminal or pipe itself, which other
    processes use too. If the reader reads nothing for ``patience`` seconds, new lines are lost until it reads
    again; then a line that ``notice`` formats reports their number. A reader that has closed the pipe does
    not stop the daemon. ``lost`` is the number of lines that were lost.
    """

    def __init__(self, descriptor: int, notice: Callable[[str], bytes], patience: float = _PATIENCE) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._patience = patience
        self._is_stalled = False
        self._rest = b""  # the rest of a partly written line
        self.lost = 0
        self._reported = 0  # the lost lines that were reported
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, lines: list[bytes]) -> None:
        """Write whole lines, or count them as lost."""
        self.housekeep()
        data = b"".join(lines)
        if not self._unreported and not self._rest:
            data = data[self._write(data) :]
            self._rest, data = _first_line(data)
        self.lost += data.count(b"\n")

    @property
    def _unreported(self) -> int:
        return self.lost - self._reported

    def housekeep(self) -> None:
        """Finish a partly written line, and report lost lines, if the reader reads again."""
        if self._rest:
            self._rest = self._rest[self._write(self._rest) :]
        if self._unreported and not self._rest:
            self._rest = self._notice(f"{self._unreported} lines were lost: no process read them")
            self._reported = self.lost
            self._rest = self._rest[self._write(self._rest) :]

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


def _first_line(data: bytes) -> tuple[bytes, bytes]:
    """Split off the first line, so that it is written completely."""
    line, newline, others = data.partition(b"\n")
    return line + newline, others


class _SenderSink(_Sink):
    def __init__(self, sender: "SyslogSender | JournalSender", send: Callable[[Record], object]) -> None:
        self._sender = sender
        self._send = send
        self.housekeep, self.close, self.disown = sender.housekeep, sender.close, sender.disown

    @property
    def lost(self) -> int:
        return self._sender.lost

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            self._send(record)


def _syslog_sink(address: str, name: str) -> Sink:
    from tamed.log.syslog import SyslogMessage, SyslogSender

    sender = SyslogSender(parse_address(address))

    def send(record: Record) -> None:
        origin, text = record.origin, record.text.decode(errors="replace")
        sender.send(SyslogMessage(origin.severity, origin.time, name, str(origin.pid), text))

    return _SenderSink(sender, send)


def _journal_sink(name: str) -> Sink:
    from tamed.log.journal import JournalSender

    sender = JournalSender(identifier=name)

    def send(record: Record) -> None:
        origin = record.origin
        fields = {"PRIORITY": str(origin.severity), "LOGGER": origin.name, "SYSLOG_PID": str(origin.pid)}
        sender.send({"MESSAGE": record.text, **fields})

    return _SenderSink(sender, send)


class _NoticeFormat:
    """Formats a notice, a line of the log about the log itself, in the layout of the log."""

    def __init__(self, layout: str) -> None:
        self._layout = layout_of(layout)

    def __call__(self, text: str) -> bytes:
        line = self._layout(Line(time.time(), "WARNING", "tamed", text, os.getpid()))
        return line.encode(errors="backslashreplace") + b"\n"
