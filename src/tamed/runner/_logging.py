"""Where `logging` takes what is logged in this process."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from tamed._fork import own
from tamed._logger import keep_log
from tamed.config.settings import Log
from tamed.daemon import Record, encode_origin
from tamed.runner._layout import Layout, Line, bare, lay_out
from tamed.runner._sink import Sink

__all__ = ["LayoutHandler", "SinkHandler", "log_to", "severity"]

_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

_LONG = 1 << 16  # characters


def log_to(handler: "LayoutHandler", layout: Layout, settings: Log, *, is_console: bool = False) -> None:
    """Send all that is logged in this process, warnings too, to a handler, as the settings say.

    What we log goes there whatever the application does to `logging`: see `keep_log`.
    """
    handler.lay_out_with(layout)
    logging.captureWarnings(capture=True)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    keep_log(handler, is_console=is_console)
    for level in settings.level:
        logging.getLogger(level.logger or None).setLevel(level.level)


@lru_cache(maxsize=32)
def severity(level: int) -> int:
    """Return the syslog severity (RFC 5424, 6.2.1) of a logging level."""
    return next((number for least, number in _SEVERITIES if level >= least), 7)


class LayoutHandler(logging.Handler):
    """Lays out what comes from `logging`, and lines that come many at once (`tamed.net.LinesHandler`).

    ``layout`` is how they look; `log_to` sets it. ``takes_origin`` says whether `take` looks at the origin of
    a record, which costs a twentieth of a line to write.
    """

    layout: Layout = staticmethod(bare)
    takes_origin = True

    def lay_out_with(self, layout: Layout) -> None:
        """Use a layout from now on."""
        self.layout = layout
        self.setFormatter(_Formatter(layout))

    def take(self, record: Record) -> None:
        """Take a record; no other thread is here meanwhile."""
        raise NotImplementedError

    def emit(self, record: logging.LogRecord) -> None:
        """Lay the record out and take it; report a mistake in a logging call."""
        try:
            text = self.format(record).encode(errors="backslashreplace")
            head = self._head(record.levelno, record.created, record.process or os.getpid(), record.name)
        except Exception:
            self.handleError(record)
            return
        self.take(Record(head, text))

    def handle_lines(self, name: str, level: int, created: float, lines: Sequence[str]) -> None:
        """Lay out many lines at once.

        They become one record, unless that would be too long, or each has to stand alone, as bare ones in a
        journal have.
        """
        process = os.getpid()
        texts = lay_out(self.layout, Line(created, logging.getLevelName(level), name, "", process), lines)
        if self.layout is not bare and sum(map(len, texts)) < _LONG:
            texts = ["\n".join(texts)]
        head = self._head(level, created, process, name)
        with self._alone():
            for text in texts:
                self.take(Record(head, text.encode(errors="backslashreplace")))

    def _head(self, level: int, created: float, process: int, name: str) -> bytes:
        return encode_origin(severity(level), created, process, name) if self.takes_origin else b""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()


class SinkHandler(LayoutHandler):
    """Writes to a sink of this process."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self.takes_origin = sink.takes_origin
        own(self)

    def disown(self) -> None:
        """Write to the same place in a forked child, beside the parent; see `tamed._fork`."""
        self._sink.disown()

    def take(self, record: Record) -> None:
        """Write it."""
        self._sink.write([record])

    def tend(self) -> str:
        """Let the sink do what is due, and return what is wrong with it; other threads may log meanwhile."""
        with self._alone():
            child = self._sink.child
            if child:
                pid, status = os.waitpid(child, os.WNOHANG)  # not any child: the others are the application's
                if pid:
                    self._sink.child_ended(pid, status)
            self._sink.tend()
            return self._sink.trouble

    def reopen(self) -> None:
        """Let the sink open its file anew."""
        with self._alone():
            self._sink.reopen()


class _Formatter(logging.Formatter):
    """Lays out log records."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._layout = layout

    def format(self, record: logging.LogRecord) -> str:
        """Lay out a record, its traceback and its stack."""
        traces = self._traces(record) if record.exc_info or record.stack_info else ""
        message = record.getMessage()
        return self._layout(
            Line(record.created, record.levelname, record.name, message, record.process, traces)
        )

    def _traces(self, record: logging.LogRecord) -> str:
        traces = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            traces.append(self.formatStack(record.stack_info))
        return "\n".join(traces)
