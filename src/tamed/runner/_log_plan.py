"""Where the log goes, by the settings and by where the command was started."""

import os
import sys
from pathlib import Path

import tamed.daemon as unix  # whole: its parts are loaded when they are used
from tamed.config import Log, names_file
from tamed.errors import ConfigurationError, UsageError
from tamed.runner._log_place import LogPlan

__all__ = ["log_in_foreground", "log_in_foreground_again", "log_of_daemon"]


def log_in_foreground(settings: Log) -> LogPlan:
    """Plan the log of a process in the foreground.

    That is standard error, and where that is the journal, the journal itself. Raises ConfigurationError for
    settings that make no sense.
    """
    return _plan(settings, settings.file or ("journal" if _is_journal() else "stderr"))


def log_in_foreground_again(settings: Log, plan: LogPlan) -> LogPlan:
    """Plan it anew from other settings, in a process that does not see where standard error leads."""
    following = _plan(settings, settings.file or ("journal" if plan.kind == "journal" else "stderr"))
    if following.kind == plan.kind == "stderr" and settings.format in ("auto", "human"):
        return plan
    return following


def log_of_daemon(settings: Log, file: Path) -> LogPlan:
    """Plan the log of a daemon: a file, unless the settings say otherwise."""
    if settings.file == "stderr":
        remedy = "name a file, or use `tamed run`"
        raise UsageError("--log stderr", "a daemon has no standard error that anyone reads", remedy)
    return _plan(settings, settings.file or str(file))


def _plan(settings: Log, place: str) -> LogPlan:
    if names_file(place):
        return LogPlan(
            "file",
            "plain" if settings.format == "auto" else settings.format,
            path=str(Path(place).absolute()),
            rotate=settings.rotate or None,
            every=settings.rotate_every or None,
            keep=settings.keep,
            compress=settings.compress,
        )
    kind, _, address = place.partition(":")
    if kind == "stderr":
        return LogPlan(kind, _layout_on_stderr(settings.format))
    layout = (
        "bare" if settings.format == "auto" else settings.format
    )  # they keep time and level by themselves
    return LogPlan(kind, layout, address=_checked(address))


def _checked(address: str) -> str:
    try:
        unix.SyslogAddress.parse(address)
    except ValueError as error:
        raise ConfigurationError("--log syslog", str(error)) from error
    return address


def _is_journal() -> bool:
    return "JOURNAL_STREAM" in os.environ and unix.is_journal(os.environ)


def _layout_on_stderr(name: str) -> str:
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if name == "auto":
        name = "human" if on_terminal else "plain"
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return "coloured" if name == "human" and on_terminal and not plain else name
