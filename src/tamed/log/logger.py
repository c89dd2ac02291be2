"""Tamed's loggers, which the application's logging configuration cannot silence.

`logging.config` assumes that it configures the whole process. With its defaults it disables all existing
loggers, including Tamed's and asyncio's, and removes all handlers from the root. An application that
configures its own logging would lose the errors of Tamed and asyncio. So Tamed's loggers cannot be disabled,
and their records reach the handler given to `keep_log`, regardless of the root's handlers. Levels, filters,
more handlers and `propagate` of these loggers work as for any other logger.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tamed.errors import exit_request

__all__ = ["exit_logged", "flush_log", "handlers_of", "keep_log", "own_logger"]


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


def handlers_of(logger: logging.Logger) -> Iterator[logging.Handler]:
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
