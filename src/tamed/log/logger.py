"""Loggers of our own, which the application's logging configuration does not silence.

`logging.config` is meant for the one owner of a process. With its defaults it disables every logger that
exists by then, ours and those of asyncio too, and it takes all handlers off the root. An application that
configures its own logging would lose the errors of what it runs on. So our loggers cannot be disabled, and
what they log reaches the log that `keep_log` names, whatever handlers the root has. Levels, filters, more
handlers and `propagate` of our loggers work as for any other logger.
"""

import logging
import sys
from collections.abc import Iterator

__all__ = ["flush_log", "handlers_of", "keep_log", "own_logger"]


class _OwnLogger(logging.Logger):
    """A logger that cannot be disabled."""

    @property
    def disabled(self) -> bool:
        """Never true: who wants less of a logger sets its level."""
        return False

    @disabled.setter
    def disabled(self, _: bool) -> None:
        return

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base's name)
        """Hand a record to all handlers, and to the log if it is not among them."""
        super().callHandlers(record)
        if _misses_log(self):
            _log.handle(record)


_log: logging.Handler = logging.NullHandler()
_is_console = False


def own_logger(name: str) -> logging.Logger:
    """Return the logger of a name, which cannot be disabled from now on."""
    logger = logging.getLogger(name)
    # A logger class for new loggers would not do: options that set levels make some of ours before we do.
    logger.__class__ = _OwnLogger
    return logger


def keep_log(handler: logging.Handler, *, is_console: bool) -> None:
    """Have all that our loggers log reach a handler, also when it is taken off the root.

    What no handler takes at all goes there too. ``is_console`` says that what this process prints goes to the
    same place: then a console handler on the root is as good.
    """
    global _log, _is_console
    _log, _is_console = handler, is_console
    logging.lastResort = handler  # any handler will do
    for name in ("asyncio", "py.warnings"):  # they speak of errors that nobody else reports
        own_logger(name)


def flush_log() -> None:
    """Flush the log; `logging.shutdown` forgets the handlers that there were before `logging.config`."""
    _log.flush()


def handlers_of(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Yield the handlers that get a logger's records, by the rules of `logging` and those of our own."""
    yield from _attached(logger)
    if isinstance(logger, _OwnLogger) and _misses_log(logger):
        yield _log


def _attached(logger: logging.Logger) -> Iterator[logging.Handler]:
    place: logging.Logger | None = logger
    while place is not None:
        yield from place.handlers
        place = place.parent if place.propagate else None


def _misses_log(logger: logging.Logger) -> bool:
    """Tell whether the root has handlers, and the log is not among them."""
    if _log in logging.root.handlers or not logging.root.handlers:
        return False
    attached = list(_attached(logger))
    return (
        _log not in attached
        and logging.root.handlers[0]
        in attached  # else whoever configured this logger wants it to go elsewhere
        and not (_is_console and any(map(_is_for_console, attached)))
    )


def _is_for_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stderr, sys.stdout)
