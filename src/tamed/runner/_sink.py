"""Where the supervisor takes the log: a file, its standard error, syslog or the journal.

A sink takes records and neither raises nor waits for long. In all but syslog and the journal the text of a
record is the line as it is to be written, because whoever made it has laid it out.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tamed.daemon as unix  # whole: of its parts only those are loaded that the log needs
from tamed.daemon import Record
from tamed.runner._layout import Line, layout_of
from tamed.runner._log_place import LogPlan
from tamed.runner._stream import StreamWriter

__all__ = ["Sink", "open_sink"]


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

    def tend(self) -> None:
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


def open_sink(plan: LogPlan, name: str, owner: "unix.Identity | None") -> Sink:
    """Open the place for the log that a plan names.

    ``name`` is the daemon's, and ``owner`` the user that it will run as. Raises a TamedError that says why
    it cannot be opened.
    """
    match plan.kind:
        case "file":
            return _FileSink(plan, owner)
        case "syslog":
            return _SyslogSink(unix.SyslogSender(unix.SyslogAddress.parse(plan.address)), name)
        case "journal":
            return _JournalSink(unix.JournalSender(identifier=name))
        case _:
            return _StreamSink(plan)


class _FileSink:
    takes_origin = False

    def __init__(self, plan: LogPlan, owner: "unix.Identity | None") -> None:
        rotation = unix.Rotation(
            plan.rotate, plan.every, plan.keep, plan.compress, plan.keep_for, plan.max_use
        )
        comment = _Commentator(plan.layout)
        self._file = unix.LogFile(Path(plan.path), rotation, owner=owner, comment=comment)
        self.reopen, self.tend, self.close = self._file.reopen, self._file.tend, self._file.close
        self.child_ended, self.disown = self._file.child_ended, self._file.disown
        self.export, self.resume = self._file.untold.export, self._file.untold.resume

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

    def tend(self) -> None:
        self._writer.tend()

    def disown(self) -> None:
        self._writer = StreamWriter(2, self._comment)

    def write(self, records: Sequence[Record]) -> None:
        self._writer.write([record.text + b"\n" for record in records])

    def close(self) -> None:
        self._writer.tend()


class _SyslogSink(_Sink):
    def __init__(self, sender: "unix.SyslogSender", name: str) -> None:
        self._sender = sender
        self._name = name
        self.tend, self.close, self.disown = sender.tend, sender.close, sender.disown

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            origin, text = record.origin, record.text.decode(errors="replace")
            message = unix.SyslogMessage(origin.severity, origin.time, self._name, str(origin.pid), text)
            self._sender.send(message)


class _JournalSink(_Sink):
    def __init__(self, sender: "unix.JournalSender") -> None:
        self._sender = sender
        self.tend, self.close, self.disown = sender.tend, sender.close, sender.disown

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
