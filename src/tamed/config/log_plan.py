"""The destination of the log, from the settings and from the environment of the command."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tamed._os.identity import user_folder
from tamed.config.settings import Log, names_file
from tamed.errors import ConfigurationError, UsageError, from_creation_error
from tamed.log.plan import LogPlan, is_journal, parse_address

if TYPE_CHECKING:
    from tamed._os.identity import Identity

__all__ = [
    "default_log",
    "default_logs",
    "log_in_foreground",
    "log_in_foreground_again",
    "log_of_daemon",
    "make_log_folder",
]

_OF_ROOT = Path("/var/log/tamed")


def log_in_foreground(settings: Log) -> LogPlan:
    """Plan the log of a process in the foreground.

    That is standard error; if standard error is connected to the journal, it is the journal itself. Raises
    ConfigurationError for invalid settings.
    """
    return _plan(settings, settings.file or ("journal" if is_journal(os.environ) else "stderr"))


def log_in_foreground_again(settings: Log, plan: LogPlan) -> LogPlan:
    """Plan it again from other settings, in a process without the command's standard error."""
    following = _plan(settings, settings.file or ("journal" if plan.kind == "journal" else "stderr"))
    if following.kind == plan.kind == "stderr" and settings.format in ("auto", "human"):
        return plan
    return following


def log_of_daemon(settings: Log, file: Path) -> LogPlan:
    """Plan the log of a daemon: ``file``, unless the settings name another destination."""
    if settings.file == "stderr":
        remedy = "use --log FILE, or `tamed run`"
        raise UsageError("--log stderr", "a daemon's standard error goes to /dev/null", remedy)
    return _plan(settings, settings.file or str(file))


def default_log(name: str, environ: Mapping[str, str], owner: "Identity | None") -> Path:
    """Return the default log file of a daemon: on disk, as run directories are in memory.

    A daemon that root starts for another user, ``owner``, has a log folder of its own, owned by that user:
    rotation needs write permission on the folder, and the folder with root's logs must belong to root.
    """
    folder, own = default_logs(name, environ)
    return own if owner is not None and owner.uid != os.geteuid() else folder


def default_logs(name: str, environ: Mapping[str, str]) -> tuple[Path, Path]:
    """Return the two possible default log files of a daemon; see `default_log`."""
    folder = _log_folder(environ)
    return folder / f"{name}.log", folder / name / f"{name}.log"


def make_log_folder(log: Path, owner: "Identity | None") -> None:
    """Make the folder of a daemon's default log. Raises as `RunDirectory.create` does."""
    from tamed.unix.rundir import RunDirectory  # lazy import: a process in the foreground makes none

    is_own = owner is not None and owner.uid != os.geteuid()
    folder = log.parent.parent if is_own else log.parent
    try:
        folder.parent.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise from_creation_error(f"directory {folder}", error, "use another place with --log") from error
    if is_own:
        RunDirectory(folder).create(log.stem, owner)
    else:
        RunDirectory(folder).make()


def _log_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of logs: that of systemd (systemd.exec(5)), of root, or the user's state (XDG)."""
    given = environ.get("LOGS_DIRECTORY", "").partition(":")[0]
    if given.startswith("/"):
        return Path(given)
    if os.geteuid() == 0:
        return _OF_ROOT
    return user_folder(environ, "XDG_STATE_HOME", ".local/state") / "tamed"


def _plan(settings: Log, place: str) -> LogPlan:
    if place in ("-", "stdout"):  # as in other programs; nobody wants a file of that name
        what = f"--log {place}"
        raise ConfigurationError(what, "standard output is no place for the log", "write stderr")
    if names_file(place):
        return LogPlan(
            "file",
            "plain" if settings.format == "auto" else settings.format,
            path=str(Path(place).absolute()),
            rotate=settings.rotate or None,
            every=settings.rotate_every or None,
            keep=settings.keep,
            compress=settings.compress,
            keep_for=settings.keep_for,
            max_use=settings.max_use,
        )
    kind, _, address = place.partition(":")
    if kind == "stderr":
        return LogPlan(kind, _layout_on_stderr(settings.format))
    layout = "bare" if settings.format == "auto" else settings.format  # they store time and level themselves
    return LogPlan(kind, layout, address=_checked(address))


def _checked(address: str) -> str:
    try:
        parse_address(address)
    except ValueError as error:
        remedy = "let the local syslog daemon forward the log" if "://" in address else ""
        raise ConfigurationError("--log syslog", str(error), remedy) from error
    return address


def _layout_on_stderr(name: str) -> str:
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if name == "auto":
        name = "human" if on_terminal else "plain"
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return "coloured" if name == "human" and on_terminal and not plain else name
