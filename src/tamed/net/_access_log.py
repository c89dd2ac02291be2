"""A log line for each of very many connections, at little cost."""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

__all__ = ["AccessLog", "LinesHandler"]

_MOST = 256  # lines that are kept for the end of the turn


@runtime_checkable
class LinesHandler(Protocol):
    """A `logging.Handler` that takes many lines at once, which differ in nothing but their text."""

    def handle_lines(self, name: str, level: int, created: float, lines: Sequence[str]) -> None:
        """Log lines of the logger ``name``; ``created`` is in seconds since the epoch."""
        ...


class AccessLog:
    """Logs lines for a logger, as ``logger.log(level, message, *args)`` does, ten times as fast.

    To be used in the event loop's thread. The lines that are added in one turn of the event loop are handed
    on at its end, or when there are 256, all with the time of the first. To a handler that is no
    `LinesHandler`, or where there are filters, each goes as a record of its own: nothing is left out.
    """

    def __init__(self, logger: logging.Logger, level: int = logging.INFO) -> None:
        self._logger = logger
        self._level = level
        self._lines: list[str] = []
        self._created = 0.0

    def add(self, message: str, *args: object) -> None:
        """Log ``message % args``, at the end of this turn.

        Raises TypeError or ValueError if the arguments are not those that the message asks for.
        """
        if not self._lines:
            if not self._logger.isEnabledFor(self._level):
                return
            self._begin()
        self._lines.append(message % args if args else message)
        if len(self._lines) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Hand on what has been added."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        handlers = [] if self._logger.filters else list(_handlers(self._logger, self._level))
        able = [handler for handler in handlers if isinstance(handler, LinesHandler) and not handler.filters]
        if able and len(able) == len(handlers):
            for handler in able:
                handler.handle_lines(self._logger.name, self._level, self._created, lines)
        else:
            for line in lines:
                self._logger.handle(self._record(line))

    def _begin(self) -> None:
        self._created = time.time()
        asyncio.get_running_loop().call_soon(self.flush)

    def _record(self, line: str) -> logging.LogRecord:
        record = self._logger.makeRecord(self._logger.name, self._level, "(unknown file)", 0, line, (), None)
        record.created = self._created
        record.msecs = self._created % 1 * 1000
        return record


def _handlers(logger: logging.Logger, level: int) -> Iterator[logging.Handler]:
    """Yield the handlers that get a logger's records of a level, by the rules of `logging`."""
    place: logging.Logger | None = logger
    while place is not None:
        yield from (handler for handler in place.handlers if level >= handler.level)
        place = place.parent if place.propagate else None
