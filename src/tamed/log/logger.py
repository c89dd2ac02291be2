"""Tamed's loggers, which the application's logging configuration cannot silence; and the one for many lines.

`logging.config` assumes that it configures the whole process. With its defaults it disables all existing
loggers, including Tamed's and asyncio's, and removes all handlers from the root. An application that
configures its own logging would lose the errors of Tamed and asyncio. So Tamed's loggers cannot be disabled,
and their records reach the handler given to `keep_log`, regardless of the root's handlers. Levels, filters,
more handlers and `propagate` of these loggers work as for any other logger.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from tamed.errors import exit_request

__all__ = ["AccessLog", "LinesHandler", "exit_logged", "flush_log", "keep_log", "own_logger"]

_MOST = 256  # lines that are buffered until the end of the iteration of the event loop
_LONGEST = 1024  # characters of a line; a client chooses the length of its URL, and the log is limited


class _OwnLogger(logging.Logger):
    """A logger that cannot be disabled."""

    @property
    def disabled(self) -> bool:
        """Never true: set the logger's level to log less."""
        return False

    @disabled.setter
    def disabled(self, _: bool) -> None:
        return

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base's name)
        """Pass a record to all handlers, and to the log if it is not among them."""
        super().callHandlers(record)
        if _misses_log(self):
            _log.handle(record)


_log: logging.Handler = logging.NullHandler()
_is_console = False


def own_logger(name: str) -> logging.Logger:
    """Return the logger with this name, which cannot be disabled from now on."""
    logger = logging.getLogger(name)
    # Not `logging.setLoggerClass`: options that set levels create some of these loggers earlier.
    logger.__class__ = _OwnLogger
    return logger


def keep_log(handler: logging.Handler, *, is_console: bool) -> None:
    """Send all records of Tamed's loggers to a handler, even when it is removed from the root.

    It also becomes `logging.lastResort`. ``is_console`` is whether the output of this process goes to the
    same place: then a console handler on the root is equivalent.
    """
    global _log, _is_console
    _log, _is_console = handler, is_console
    logging.lastResort = handler  # the type is too narrow: any handler works
    for name in ("asyncio", "py.warnings"):  # their errors are reported nowhere else
        own_logger(name)


@contextmanager
def exit_logged(logger: logging.Logger, who: str, when: str) -> Iterator[None]:
    """Log which code ends the process if the block raises SystemExit, and add it to the exception as a note.

    Of nested blocks only the innermost does so.
    """
    try:
        yield
    except SystemExit as ended:
        if not hasattr(ended, "__notes__"):
            ended.add_note(f"{who} ended {when}")
            logger.info("%s, %s, %s", who, when, exit_request(ended))
        raise


def flush_log() -> None:
    """Flush the log. `logging.shutdown` does not do that if `logging.config` removed its handler."""
    _log.flush()


def _handlers_of(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Yield the handlers that get a logger's records, by the rules of `logging` and of this module."""
    yield from _attached(logger)
    if isinstance(logger, _OwnLogger) and _misses_log(logger):
        yield _log


def _attached(logger: logging.Logger) -> Iterator[logging.Handler]:
    place: logging.Logger | None = logger
    while place is not None:
        yield from place.handlers
        place = place.parent if place.propagate else None


def _misses_log(logger: logging.Logger) -> bool:
    """Return whether the log must be added to the handlers that get this logger's records."""
    if _log in logging.root.handlers or not logging.root.handlers:
        return False
    attached = list(_attached(logger))
    return (
        _log not in attached
        and logging.root.handlers[0]
        in attached  # otherwise the application has configured another destination for this logger
        and not (_is_console and any(map(_is_for_console, attached)))
    )


def _is_for_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stderr, sys.stdout)


@runtime_checkable
class LinesHandler(Protocol):
    """A `logging.Handler` that accepts many lines at once, which differ only in their text."""

    def handle_lines(self, name: str, level: int, created: float, lines: Sequence[str]) -> None:
        """Log lines of the logger ``name``; ``created`` is in seconds since the epoch."""
        ...


_Take = Callable[[str, int, float, Sequence[str]], None]


class AccessLog:
    """Logs lines for a logger, as ``logger.log(level, message, *args)`` does, but ten times as fast.

    Use it in the event loop's thread. The lines of one turn of the event loop are passed to the handlers at
    its end, or when there are 256, all with the time of the first. A handler that is not a `LinesHandler`, or
    has filters, gets a record for each line: no line is lost. A line is cut after 1,024 characters, because
    clients could fill the log with a few long ones.
    """

    def __init__(self, logger: logging.Logger, level: int = logging.INFO) -> None:
        self._logger = logger
        self._level = level
        self._lines: list[str] = []
        self._created = 0.0

    def add(self, message: str, *args: object) -> None:
        """Log ``message % args``, at the end of this turn of the event loop.

        Raises TypeError or ValueError if the arguments do not match the message.
        """
        if not self._lines:
            if not self._logger.isEnabledFor(self._level):
                return
            self._created = time.time()
            from asyncio import get_running_loop  # lazy import: most loggers need no event loop

            get_running_loop().call_soon(self.flush)
        line = message % args if args else message
        if len(line) > _LONGEST:
            line = f"{line[:_LONGEST]}... ({len(line)} characters)"
        self._lines.append(line)
        if len(self._lines) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Pass the added lines to the handlers."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        takers = [] if self._logger.filters else list(_takers(self._logger, self._level))
        able = [take for take in takers if take is not None]
        if able and len(able) == len(takers):
            for take in able:
                take(self._logger.name, self._level, self._created, lines)
        else:
            for line in lines:
                self._logger.handle(self._record(line))

    def _record(self, line: str) -> logging.LogRecord:
        record = self._logger.makeRecord(self._logger.name, self._level, "(unknown file)", 0, line, (), None)
        record.created = self._created
        record.msecs = self._created % 1 * 1000
        return record


def _takers(logger: logging.Logger, level: int) -> Iterator[_Take | None]:
    """Yield ``handle_lines`` of each handler that gets a logger's records of a level.

    For a handler that needs records, yield None. The handlers are selected by the rules of `logging`.
    """
    for handler in _handlers_of(logger):
        if level >= handler.level:
            # Not isinstance(): to check an object against a protocol takes as long as a line.
            yield None if handler.filters else getattr(handler, "handle_lines", None)
