"""Twisted's logging, old and new, forwarded to `logging`."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from twisted.logger import (
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from twisted.python.log import ILogObserver as ILegacyLogObserver
from zope.interface import implementer

from tamed.log.logger import own_logger
from tamed.twisted._compat import has_begun_logging

__all__ = ["LoggingObserver", "begin_logging", "log_to_observer_of"]

_LEVELS: Final = {
    LogLevel.debug: logging.DEBUG,
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}
_LEGACY: Final = "log_legacy"
"""The namespace of events that were logged with `twisted.python.log`."""


@implementer(ILogObserver)
class LoggingObserver:
    """Passes Twisted's events to `logging`: to the logger of their namespace, with level, time and traceback.

    An event of the old API has no namespace; its logger is ``twisted``.
    """

    def __call__(self, event: LogEvent) -> None:
        namespace = event.get("log_namespace") or "twisted"
        logger = own_logger("twisted" if namespace == _LEGACY else namespace)
        level = _LEVELS.get(event.get("log_level", LogLevel.info), logging.INFO)
        if not logger.isEnabledFor(level):
            return
        text, trace = _text(event), _trace(event.get("log_failure"))
        record = logger.makeRecord(logger.name, level, "", 0, text, (), trace)
        record.created = event.get("log_time", record.created)  # the event may have been buffered
        logger.handle(record)


def begin_logging(application: Any) -> None:
    """Send Twisted's past and future log events to `logging`.

    Or to the chosen observer, or the one that the application has as a component, as under twistd. Only the
    first call in a process has an effect.
    """
    if _choice.begun:
        return
    _choice.begun = True
    observer: Any = _choice.observer or _own_observer(application) or LoggingObserver()
    if has_begun_logging():  # the program has begun logging itself
        globalLogPublisher.addObserver(observer)
        return
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def log_to_observer_of(factory: Callable[[], Any]) -> None:
    """Make `begin_logging` send everything only to the observer that a factory creates, old or new."""
    _choice.observer = _as_new(factory())


@dataclass(slots=True)
class _Choice:
    """The chosen observer of this process, as Twisted's logging is global, too."""

    observer: Any = None
    begun: bool = False


_choice = _Choice()


def _own_observer(application: Any) -> Any:
    get = getattr(application, "getComponent", None)
    if get is None:
        return None
    observer = get(ILogObserver, None)
    if observer is not None:
        return observer
    legacy = get(ILegacyLogObserver, None)
    return None if legacy is None else _as_new(legacy)


def _as_new(observer: Any) -> Any:
    return observer if ILogObserver.providedBy(observer) else LegacyLogObserverWrapper(observer)


def _text(event: LogEvent) -> str:
    failure: Failure | None = event.get("log_failure")
    if failure is None:
        return _with_system(event, formatEvent(event))
    if event.get("log_namespace") == _LEGACY:
        message = event.get("why") or "Unhandled Error"  # its text includes the traceback
    else:
        message = formatEvent(event) or "Unhandled Error"
    trace = "" if _trace(failure) else f"\n{failure.getTraceback().rstrip()}"
    return _with_system(event, f"{message}{trace}")


def _with_system(event: LogEvent, text: str) -> str:
    """Prefix a text of the old API with its connection."""
    system = event.get("system", "-")
    return text if event.get("log_namespace") != _LEGACY or system == "-" else f"[{system}] {text}"


def _trace(failure: Failure | None) -> Any:
    """Return a failure in the form for `logging`; None if only the text of its traceback remains."""
    if failure is None:
        return None
    trace = failure.getTracebackObject()
    if not isinstance(trace, TracebackType):
        return None
    return failure.type, failure.value, trace
