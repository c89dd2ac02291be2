"""Access logs: many lines a second at low cost."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from tamed.log.logger import handlers_of

__all__ = ["AccessLog", "LinesHandler"]

_MOST = 256  # lines that are buffered until the end of the iteration of the event loop
_LONGEST = 1024  # characters of a line; a client chooses the length of its URL, and the log is limited


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
            asyncio.get_running_loop().call_soon(self.flush)
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
    for handler in handlers_of(logger):
        if level >= handler.level:
            # Not isinstance(): to check an object against a protocol takes as long as a line.
            yield None if handler.filters else getattr(handler, "handle_lines", None)
