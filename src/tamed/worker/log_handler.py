"""Handlers of `logging`, which write the records of this process to the supervisor's pipe, or to a sink.

A worker has a `PipeHandler`, because only the supervisor writes the log. A single process has a
`SinkHandler`.
"""

import asyncio
import logging
import os
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from tamed._os.descriptors import replace_with_null
from tamed._os.fork import own
from tamed._os.secrets import SECRETS
from tamed.config.settings import Level
from tamed.log.layout import Layout, Line, bare, json, lay_out
from tamed.log.logger import keep_log
from tamed.log.outbox import Outbox
from tamed.log.plan import Sink
from tamed.log.record import Record, encode_origin, encode_record
from tamed.service.lifecycle import current_path

__all__ = ["LayoutHandler", "PipeHandler", "ProcessOrigin", "SinkHandler", "log_to", "severity"]


_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_LONG = 1 << 16  # characters
_LIMIT = 16 * 1024 * 1024  # bytes queued for the supervisor
_PATIENCE = 0.5  # seconds a record waits for space before the supervisor counts as stalled
_FLUSH_TIMEOUT = 5.0  # seconds for sending the log before the worker ends


def log_to(
    handler: "LayoutHandler",
    layout: Layout,
    levels: Sequence[Level],
    *,
    is_console: bool = False,
) -> None:
    """Send all log records of this process, and warnings, to a handler; set the levels of loggers.

    Tamed's own records go there even if the application reconfigures `logging`: see `keep_log`.
    """
    handler.lay_out_with(layout)
    logging.captureWarnings(capture=True)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    keep_log(handler, is_console=is_console)
    for level in levels:
        logging.getLogger(level.logger or None).setLevel(level.level)


@lru_cache(maxsize=32)
def severity(level: int) -> int:
    """Return the syslog severity (RFC 5424, 6.2.1) of a logging level."""
    return next((number for least, number in _SEVERITIES if level >= least), 7)


_STANDARD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
"""The attributes that `logging` itself sets; all others are fields of the application."""


class ProcessOrigin(NamedTuple):
    """The logging process: a worker of an instance and a generation, or a single process (None)."""

    instance: str | None = None
    worker: int | None = None
    generation: int | None = None

    def with_fields(self, line: Line, layout: Layout, record: logging.LogRecord | None = None) -> Line:
        """Return a line with the fields that the layout shows: JSON alone.

        They are those of ``extra=``, and the instance, the generation and the logging service.
        """
        if layout is not json:
            return line
        fields: dict[str, object] = {}
        if record is not None:
            fields = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        known = {
            "instance": self.instance,
            "generation": self.generation,
            "service": current_path(),
        }
        return line._replace(
            fields=fields | {key: value for key, value in known.items() if value is not None}
        )


class LayoutHandler(logging.Handler):
    """Formats records of `logging`, and batches of lines (`tamed.log.logger.LinesHandler`).

    ``layout`` is the format; `log_to` sets it. ``takes_origin`` is whether `take` uses the origin of a
    record, which costs 5 % of the time of a line.
    """

    origin = ProcessOrigin()
    layout: Layout = staticmethod(bare)
    takes_origin = True

    def lay_out_with(self, layout: Layout) -> None:
        """Set the layout."""
        self.layout = layout
        self.setFormatter(_Formatter(layout, self.origin))

    def name_origin(self, origin: ProcessOrigin) -> None:
        """Set the process that the records name as their origin."""
        self.origin = origin
        self.lay_out_with(self.layout)

    def take(self, record: Record) -> None:
        """Handle a record. The caller holds the handler's lock."""
        raise NotImplementedError

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and handle it; report an error in a logging call."""
        try:
            text = SECRETS.hidden(self.format(record)).encode(errors="backslashreplace")
            head = self._head(record.levelno, record.created, record.process or os.getpid(), record.name)
        except Exception:
            self.handleError(record)
            return
        self.take(Record(head, text))

    def handle_lines(self, name: str, level: int, created: float, lines: Sequence[str]) -> None:
        """Format many lines at once.

        They become one record, unless it would be too long, or each line must be a separate record, as bare
        ones in a journal.
        """
        process = os.getpid()
        line = Line(created, logging.getLevelName(level), name, "", process, worker=self.origin.worker)
        texts = lay_out(self.layout, self.origin.with_fields(line, self.layout), lines)
        if self.layout is not bare and sum(map(len, texts)) < _LONG:
            texts = ["\n".join(texts)]
        head = self._head(level, created, process, name)
        with self._alone():
            for text in texts:
                self.take(Record(head, SECRETS.hidden(text).encode(errors="backslashreplace")))

    def _head(self, level: int, created: float, process: int, name: str) -> bytes:
        return encode_origin(severity(level), created, process, name) if self.takes_origin else b""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()


class _Formatter(logging.Formatter):
    """Lays out log records."""

    def __init__(self, layout: Layout, origin: ProcessOrigin) -> None:
        super().__init__()
        self._layout = layout
        self._origin = origin

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, its traceback and its stack."""
        traces = self._traces(record) if record.exc_info or record.stack_info else ""
        message = record.getMessage()
        worker = self._origin.worker
        line = Line(record.created, record.levelname, record.name, message, record.process, traces, worker)
        return self._layout(self._origin.with_fields(line, self._layout, record))

    def _traces(self, record: logging.LogRecord) -> str:
        traces = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            traces.append(self.formatStack(record.stack_info))
        return "\n".join(traces)


class SinkHandler(LayoutHandler):
    """Writes to a sink of this process."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self.takes_origin = sink.takes_origin
        own(self)

    def disown(self) -> None:
        """In a forked child, write to the same place as the parent; see `tamed._os.fork`."""
        self._sink.disown()

    def take(self, record: Record) -> None:
        """Write the record."""
        self._sink.write([record])

    def housekeep(self) -> str:
        """Do the housekeeping of the sink; return its trouble, if any. Safe while other threads log."""
        with self._alone():
            child = self._sink.child
            if child:
                pid, status = os.waitpid(child, os.WNOHANG)  # this child only: others are the application's
                if pid:
                    self._sink.child_ended(pid, status)
            self._sink.housekeep()
            return self._sink.trouble

    def reopen(self) -> None:
        """Let the sink reopen its file."""
        with self._alone():
            self._sink.reopen()


class PipeHandler(LayoutHandler):
    """Sends each record, formatted, to the supervisor through a pipe."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""
        self._outbox = Outbox(self._write, self._note, limit=_LIMIT)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = False
        self._is_stalled = False
        self._is_childs = False
        own(self)

    @property
    def lost(self) -> int:
        """The number of lines lost because the supervisor read too slowly."""
        return self._outbox.lost

    def disown(self) -> None:
        """In a forked child, print the records: two writers to the pipe would interleave records.

        Printed text is in the log, too. The parent sends the queued records; see `tamed._os.fork`.
        """
        replace_with_null([self._descriptor])
        self._is_childs = True
        self._loop, self._waiting = None, False
        self._rest = b""
        self._outbox = Outbox(self._write, self._note, limit=_LIMIT)
        self.takes_origin = False
        self.lay_out_with(_printed)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Inside the ``with``, the running loop sends queued records; outside, only `flush` does."""
        self._loop = asyncio.get_running_loop()
        self._wait_for_room()
        try:
            yield
        finally:
            if self._waiting:
                self._loop.remove_writer(self._descriptor)
            self._loop, self._waiting = None, False

    def take(self, record: Record) -> None:
        """Send a record, or queue it until the pipe has space."""
        if self._is_childs:
            _print(record.text + b"\n")
            return
        is_sent = self._outbox.put(encode_record(record), lines=record.text.count(b"\n") + 1)
        if is_sent and not self._rest:
            return
        if self._outbox.is_crowded and not self._is_stalled:
            self._is_stalled = not self._make_room()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wait_for_room)

    def flush(self) -> None:
        """Send all queued records, for a few seconds at most; called at the end of the process."""
        deadline = time.monotonic() + _FLUSH_TIMEOUT
        while not self._send_queued() and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._descriptor], [], left)

    def _make_room(self) -> bool:
        """Wait briefly until the supervisor has read enough of the queue; return whether it has."""
        deadline = time.monotonic() + _PATIENCE
        while self._outbox.is_crowded and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._descriptor], [], left)
            self._send_queued()
        return not self._outbox.is_crowded

    def _wait_for_room(self) -> None:
        if self._loop is not None and not self._waiting and not self._send_queued():
            self._waiting = True
            self._loop.add_writer(self._descriptor, self._go_on)

    def _go_on(self) -> None:
        if self._send_queued() and self._loop is not None:
            self._waiting = False
            self._loop.remove_writer(self._descriptor)

    def _send_queued(self) -> bool:
        """Send as much of the queue as possible; return whether it is empty."""
        with self._alone():  # other threads log, too
            is_done = (not self._rest or self._write(b"")) and self._outbox.flush() and not self._rest
            self._is_stalled = self._is_stalled and not is_done
            return is_done

    def _write(self, frame: bytes) -> bool:
        """Write the rest of the previous frame and this one; return whether the pipe took at least a part."""
        data = self._rest + frame
        try:
            written = os.write(self._descriptor, data)
        except BlockingIOError:
            return False
        except OSError:  # the supervisor has ended, which the worker notices soon
            self._rest = b""
            return True
        self._rest = data[written:]
        return True

    def _note(self, text: str) -> bytes:
        worker = self.origin.worker
        line = self.layout(Line(time.time(), "WARNING", "tamed", text, os.getpid(), worker=worker))
        head = encode_origin(4, time.time(), os.getpid(), "tamed")
        return encode_record(Record(head, line.encode(errors="backslashreplace")))


def _printed(line: Line) -> str:
    """Format a line without the time and the worker's name, which the supervisor adds."""
    return f"{line.level} {line.logger}[{line.pid}]: {bare(line)}"


def _print(text: bytes) -> None:
    """Write to descriptor 2: the application may have replaced `sys.stderr`."""
    while text:
        try:
            text = text[os.write(2, text) :]
        except OSError:  # the reader has closed it
            return
