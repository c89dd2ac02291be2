"""Where the supervisor takes the log: a file, its standard error, syslog or the journal.

A sink takes records and neither raises nor waits for long. In all but syslog and the journal the text of a
record is the line as it is to be written, because whoever made it has laid it out.
"""

import os
import select
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tamed._os.identity import Identity
from tamed.log.file import LogFile
from tamed.log.journal import JournalSender
from tamed.log.layout import Line, layout_of
from tamed.log.plan import LogPlan
from tamed.log.record import Record
from tamed.log.syslog import SyslogMessage, SyslogSender, parse_address

__all__ = ["Sink", "StreamWriter", "open_sink"]


class Sink(Protocol):
    """A place for the log.

    ``takes_origin`` says whether it looks at the origins of records, and ``trouble`` what is wrong with it.
    """

    takes_origin: bool

    @property
    def trouble(self) -> str:
        """What is wrong, in a sentence; empty if nothing is."""

    def write(self, records: Sequence[Record]) -> None:
        """Take records, in order."""

    def reopen(self) -> str:
        """Open the file anew, because somebody has moved it away; return why that failed, or nothing."""

    def housekeep(self) -> None:
        """Do what is due: to be called about once a second."""

    @property
    def child(self) -> int:
        """The pid of a child that the sink has at work, 0 if it has none."""

    def child_ended(self, pid: int, status: int) -> bool:
        """Hear that a child was reaped, with its wait status; tell whether it was the sink's own."""

    def disown(self) -> None:
        """Write beside the parent, in a forked child: what is to be done once is left to the parent."""

    def export(self) -> list[Any]:
        """Return what the next program has to say about this log."""

    def resume(self, left: Sequence[Any]) -> None:
        """Say what the program before could not."""

    def close(self) -> None:
        """Write what can still be written, and let go."""


def open_sink(plan: LogPlan, name: str, owner: Identity | None) -> Sink:
    """Open the place for the log that a plan names.

    ``name`` is the daemon's, and ``owner`` the user that it will run as. Raises a TamedError that says why
    it cannot be opened.
    """
    match plan.kind:
        case "file":
            return _FileSink(plan, owner)
        case "syslog":
            return _SyslogSink(SyslogSender(parse_address(plan.address)), name)
        case "journal":
            return _JournalSink(JournalSender(identifier=name))
        case _:
            return _StreamSink(plan)


class _FileSink:
    takes_origin = False

    def __init__(self, plan: LogPlan, owner: Identity | None) -> None:
        comment = _Commentator(plan.layout)
        self._file = LogFile(Path(plan.path), plan.rotation, owner=owner, comment=comment)
        self.reopen, self.housekeep, self.close = self._file.reopen, self._file.housekeep, self._file.close
        self.child_ended, self.disown = self._file.child_ended, self._file.disown
        self.export, self.resume = self._file.unreported.export, self._file.unreported.resume

    @property
    def child(self) -> int:
        return self._file.child

    @property
    def trouble(self) -> str:
        return self._file.trouble

    def write(self, records: Sequence[Record]) -> None:
        self._file.write([record.text + b"\n" for record in records])


class _Sink:
    """What a sink does that has no file."""

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
        self._comment = _Commentator(plan.layout)
        self._writer = StreamWriter(2, self._comment)

    def housekeep(self) -> None:
        self._writer.housekeep()

    def disown(self) -> None:
        self._writer = StreamWriter(2, self._comment)

    def write(self, records: Sequence[Record]) -> None:
        self._writer.write([record.text + b"\n" for record in records])

    def close(self) -> None:
        self._writer.housekeep()


_CHUNK = 4096  # bytes that a pipe has room for if poll(2) says that it can be written to: PIPE_BUF, pipe(7)
_PATIENCE = 1.0  # seconds


class StreamWriter:
    """Writes lines to a descriptor, and waits for whoever reads them, but not for long.

    The descriptor is not made non-blocking: that is a property of the terminal or pipe itself, which others
    use too. A reader who takes nothing for a second loses what comes from then on, until it reads again; then
    it is told how much that was, in a line that ``note`` makes. One that is gone for good is no reason to
    stop.
    """

    def __init__(self, descriptor: int, note: Callable[[str], bytes], patience: float = _PATIENCE) -> None:
        self._descriptor = descriptor
        self._note = note
        self._patience = patience
        self._is_stalled = False
        self._rest = b""  # of a line that was not taken as a whole
        self._lost = 0  # lines
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, lines: list[bytes]) -> None:
        """Write whole lines, or count them as lost."""
        self.housekeep()
        data = b"".join(lines)
        if not self._lost and not self._rest:
            data = data[self._write(data) :]
            self._rest, data = _first_line(data)
        self._lost += data.count(b"\n")

    def housekeep(self) -> None:
        """Finish what was begun, and say what was lost, if somebody reads again."""
        if self._rest:
            self._rest = self._rest[self._write(self._rest) :]
        if self._lost and not self._rest:
            self._rest = self._note(f"{self._lost} lines were lost: nobody read them")
            self._lost = 0
            self._rest = self._rest[self._write(self._rest) :]

    def _write(self, data: bytes) -> int:
        """Write as much as is taken; return how much that was."""
        written = 0
        while written < len(data) and self._has_room():
            try:
                written += os.write(self._descriptor, data[written : written + _CHUNK])
            except BlockingIOError:
                continue
            except OSError:
                return len(data)  # there is no reader any more
        return written

    def _has_room(self) -> bool:
        room = bool(self._poll.poll(0 if self._is_stalled else self._patience * 1000))
        self._is_stalled = not room
        return room


def _first_line(data: bytes) -> tuple[bytes, bytes]:
    """Split off what is left of the line that was begun, so that it is not torn."""
    line, newline, others = data.partition(b"\n")
    return line + newline, others


class _SyslogSink(_Sink):
    def __init__(self, sender: SyslogSender, name: str) -> None:
        self._sender = sender
        self._name = name
        self.housekeep, self.close, self.disown = sender.housekeep, sender.close, sender.disown

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            origin, text = record.origin, record.text.decode(errors="replace")
            message = SyslogMessage(origin.severity, origin.time, self._name, str(origin.pid), text)
            self._sender.send(message)


class _JournalSink(_Sink):
    def __init__(self, sender: JournalSender) -> None:
        self._sender = sender
        self.housekeep, self.close, self.disown = sender.housekeep, sender.close, sender.disown

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            origin = record.origin
            self._sender.send(
                {
                    "MESSAGE": record.text,
                    "PRIORITY": str(origin.severity),
                    "LOGGER": origin.name,
                    "SYSLOG_PID": str(origin.pid),
                }
            )


class _Commentator:
    """Makes a line, in the layout of the log, of what the log says about itself."""

    def __init__(self, layout: str) -> None:
        self._layout = layout_of(layout)

    def __call__(self, text: str) -> bytes:
        line = self._layout(Line(time.time(), "WARNING", "tamed", text, os.getpid()))
        return line.encode(errors="backslashreplace") + b"\n"
