"""The options that every target has: how it runs, and how it logs.

They are declared like the options of a plugin, so the command line, the environment, the deployment file and
the help agree. ``Daemon`` is the table ``[daemon]`` of a deployment file, and ``Log`` the table ``[log]``. On
the command line and in the environment, the names of ``Log`` have the prefix ``log``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar

from tamed._os.limits import usable_cpus
from tamed._os.text import value_text, why_no_name
from tamed.plugins.option import option
from tamed.plugins.values import Duration, Size

__all__ = ["Daemon", "Level", "Log", "Name", "Settings", "Umask", "Workers", "names_file"]

# The numbers of the module logging, which the command that starts a daemon need not import.
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


_MOST_PROCESSES: Final = 4_194_304  # PID_MAX_LIMIT of the kernel


_HOOKS: Final = 30.0  # seconds, beside the draining, for the hooks of services


class Level(NamedTuple):
    """A logging level, for one logger and those below it, or for all loggers (``logger`` is empty)."""

    logger: str
    level: int

    @classmethod
    def parse(cls, text: str) -> "Level":
        """Read ``info`` or ``tamed.net=debug``; raise ValueError for anything else."""
        logger, _, name = text.rpartition("=")
        if name.strip().lower() not in _LEVELS:
            raise ValueError(f"expected {', '.join(_LEVELS)}, or LOGGER=LEVEL, got {text!r}")
        return cls(logger.strip(), _LEVELS[name.strip().lower()])

    def __str__(self) -> str:
        name = next((name for name, level in _LEVELS.items() if level == self.level), str(self.level))
        return f"{self.logger}={name}" if self.logger else name


class Name(str):
    """The name of an instance: letters, digits, and a few other characters."""

    __slots__ = ()

    def __new__(cls, name: str) -> Self:
        """Raise ValueError for a text that cannot name a folder, or looks like an option."""
        if why := why_no_name(name):
            raise ValueError(why)
        return super().__new__(cls, name)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name, as calling the class does."""
        return cls(text)


class Workers(int):
    """A number of worker processes: ``4``, or ``auto`` for one for each CPU of this process."""

    @classmethod
    def parse(cls, text: str) -> "Workers":
        """Read a number from 1 up, or ``auto``; raise ValueError for anything else."""
        if text.strip() == "auto":
            return cls(usable_cpus())
        if not re.fullmatch("[0-9]{1,18}", text.strip()):
            raise ValueError(f"expected a number from 1 up, or auto, got {value_text(text)}")
        return cls(int(text))

    def __new__(cls, number: float) -> Self:
        """Refuse fewer than one, and more than the kernel's limit of processes."""
        if not isinstance(number, int) or not 1 <= number <= _MOST_PROCESSES:
            raise ValueError(f"expected a number from 1 up, or auto, got {value_text(number)}")
        return super().__new__(cls, number)


class Umask(int):
    """A file-creation mask, written as an octal number: ``0027``."""

    @classmethod
    def parse(cls, text: str) -> "Umask":
        """Read an octal number up to 0777; raise ValueError for anything else."""
        if not re.fullmatch("(0o)?[0-7]{1,18}", text):
            raise ValueError(f"expected an octal number up to 0777, got {value_text(text)}")
        return cls(int(text, 8))

    def __new__(cls, mask: float) -> Self:
        """Refuse bits that are not permission bits."""
        if not isinstance(mask, int) or not 0 <= mask <= 0o777:
            raise ValueError(f"expected an octal number up to 0777, got {value_text(mask)}")
        return super().__new__(cls, mask)

    def __str__(self) -> str:
        return f"{int(self):04o}"


# The headings of the help text.
_PROCESSES: Final = "Processes"
_USER: Final = "User and permissions"
_FILES: Final = "Files and folders"
_TIMES: Final = "Timeouts"
_LOG: Final = "Log"


@dataclass(init=False, repr=False, eq=False)
class _Table:  # noqa: PLW1641 - its values can change
    """Values of options, by name: what `dataclass` would compile for them takes 2.6 % of a start."""

    def __init__(self, **values: Any) -> None:
        for field in fields(self):
            default = field.default if field.default_factory is MISSING else field.default_factory()
            setattr(self, field.name, values.pop(field.name, default))
        if values:
            raise TypeError(f"{type(self).__name__} has no options {', '.join(values)}")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if isinstance(other, type(self)) else NotImplemented


@dataclass(init=False, repr=False, eq=False)
class Daemon(_Table):
    """How the process behaves."""

    name: Name | None = option(
        None, "Name of the instance; by default that of the deployment or the target.", section=_PROCESSES
    )
    service: list[str] = option(
        [],
        "Service of the deployment file to run, without the others; by default all run.",
        section=_PROCESSES,
    )
    workers: Workers | None = option(
        None, "Number of worker processes, under a supervisor; auto is one for each CPU.", section=_PROCESSES
    )
    yes: bool = option(False, "Allow more than 32 workers for each CPU.", section=_PROCESSES)
    watchdog: Duration = option(
        Duration("30s"),
        "Replace a worker whose event loop is blocked for this long.",
        gt=0,
        section=_PROCESSES,
    )
    preload: bool = option(
        False,
        "Load the application once and fork the workers, so that they share memory.",
        section=_PROCESSES,
    )
    reload: bool = option(
        False, "Reload whenever a file of the application changes; for development.", section=_PROCESSES
    )
    max_connections_per_worker: int | None = option(
        None,
        "Replace each worker after about this many connections. No connection is dropped.",
        ge=1,
        section=_PROCESSES,
    )
    max_worker_age: Duration | None = option(
        None, "Replace each worker after about this time. No connection is dropped.", section=_PROCESSES
    )
    max_worker_memory: Literal["auto"] | Size | None = option(
        None,
        "Replace a worker that uses more memory than this; auto is its share of the available memory.",
        ge=1,
        section=_PROCESSES,
    )
    ops: str = option(
        "",
        "Endpoint that answers health checks and metrics over HTTP, such as 127.0.0.1:9321.",
        section=_PROCESSES,
    )
    ops_host: list[str] = option(
        [],
        "Name by which clients address the operations endpoint, besides IP addresses and localhost.",
        section=_PROCESSES,
    )
    ops_agent: str = option(
        "",
        "Endpoint that answers the agent check of HAProxy; needs --ops.",
        section=_PROCESSES,
    )
    cluster: str = option(
        "",
        "Engine that grants roles across machines, such as etcd://HOST,HOST.",
        section=_PROCESSES,
    )
    cluster_lease: Duration = option(
        Duration("15s"),
        "How long a machine holds a role of the cluster without a renewal; the same on all.",
        ge=2,
        le=3600,
        section=_PROCESSES,
    )
    loop: Literal["auto", "asyncio", "uvloop"] = option(
        "auto", "Event loop; auto is uvloop if it is installed.", section=_PROCESSES
    )
    max_files: int | None = option(None, "Limit of open files for each process.", ge=32, section=_PROCESSES)
    user: str = option("", "User to run as, by name or number, once everything is bound.", section=_USER)
    group: str = option("", "Group to run as; by default that of the user.", section=_USER)
    keep_capability: list[str] = option(
        [], "Capability to keep, such as CAP_NET_BIND_SERVICE.", section=_USER
    )
    prepare_as_root: bool = option(
        False,
        "Load and prepare the application as root, before privileges are dropped. You must trust its files.",
        section=_USER,
    )
    trust_writable: bool = option(
        False,
        "As root, also run files that other users can change. Those users can then become root.",
        section=_USER,
    )
    umask: Umask | None = option(
        None, "File-creation mask, in octal. Daemons default to 0027.", section=_USER
    )
    chroot: Path | None = option(
        None, "Root directory to change to once everything is bound; only without workers.", section=_USER
    )
    env_file: Path | None = option(
        None, "File of KEY=VALUE lines. They override variables of the environment.", section=_USER
    )
    directory: Path | None = option(None, "Working directory; by default the current one.", section=_FILES)
    rundir: Path | None = option(None, "Run directory: where the instances of this user are.", section=_FILES)
    pid_file: Path | None = option(
        None, "Second pid file, besides the one in the run directory.", section=_FILES
    )
    start_timeout: Duration = option(
        Duration("90s"), "Longest time until everything is ready.", gt=0, section=_TIMES
    )
    drain_timeout: Duration = option(
        Duration("30s"), "Longest time for open connections to finish when a server stops.", section=_TIMES
    )
    stop_timeout: Duration | None = option(
        None, "Longest time for workers to stop; by default the drain timeout and 30 seconds.", section=_TIMES
    )
    stop_delay: Duration = option(
        Duration("0s"),
        "Time to keep serving after a stop request, so that load balancers notice it.",
        section=_TIMES,
    )

    @property
    def longest_stop(self) -> float:
        """The longest time for a stop, in seconds: ``stop_timeout``, by default the drain timeout and 30."""
        return self.drain_timeout + _HOOKS if self.stop_timeout is None else self.stop_timeout

    @property
    def is_supervised(self) -> bool:
        """Whether one of the options needs a supervisor."""
        wishes = (self.workers, self.max_connections_per_worker, self.max_worker_age, self.max_worker_memory)
        is_wished = any(wish is not None for wish in wishes)
        return is_wished or any((self.preload, self.reload, self.ops, self.ops_agent, self.cluster))


@dataclass(init=False, repr=False, eq=False)
class Log(_Table):
    """Which records are logged, where, and in which format."""

    level: list[Level] = option(
        [Level("", _LEVELS["info"])],
        "Lowest level to log; LOGGER=LEVEL for one logger and those below it.",
        section=_LOG,
    )
    format: Literal["auto", "human", "plain", "json"] = option(
        "auto", "Format of a line; auto is human on a terminal and plain elsewhere.", section=_LOG
    )
    file: str = option(
        "", "Destination of the log: a file, stderr, journal, syslog, or syslog:unix:/PATH.", section=_LOG
    )
    rotate: Size = option(Size("1 MB"), "Rotate the log file at this size; 0 for never.", section=_LOG)
    rotate_every: Duration | None = option(None, "Rotate the log file after this time.", section=_LOG)
    keep: int = option(10, "Keep at least this many rotated log files.", section=_LOG)
    keep_for: Duration = option(
        Duration("7d"), "Keep rotated log files beyond that number for this long.", section=_LOG
    )
    max_use: Size = option(
        Size("100 MB"), "Total size of rotated log files beyond that number.", section=_LOG
    )
    compress: bool = option(False, "Compress rotated log files.", section=_LOG)


class Settings(NamedTuple):
    """The options of `Daemon` and `Log`, read and validated."""

    daemon: Daemon
    log: Log

    def to_data(self) -> dict[str, Any]:
        """Return the values as plain data, for another process, which does not read the files again."""
        return {"daemon": _plain(self.daemon), "log": _plain(self.log)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Settings":
        """Return the settings that the data was made from.

        Unknown options, of another version of Tamed, are ignored; missing ones have their defaults.
        """
        return cls(_from_plain(Daemon, data["daemon"]), _from_plain(Log, data["log"]))


O = TypeVar("O", Daemon, Log)  # noqa: E741 - a table of options

_PATHS: Final = ("chroot", "directory", "env_file", "pid_file", "rundir")
_MADE: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(_PATHS, Path),
    "level": lambda levels: [Level(*each) for each in levels],
}
"""Converters from plain data, for types that JSON does not keep; numbers need none."""


def _plain(options: Daemon | Log) -> dict[str, Any]:
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _from_plain(options_type: type[O], values: Mapping[str, Any]) -> O:
    known = {field.name for field in fields(options_type)}
    return options_type(**{name: _made(name, value) for name, value in values.items() if name in known})


def _made(name: str, value: Any) -> Any:
    make = _MADE.get(name)
    return value if make is None or value is None else make(value)


def names_file(place: str) -> bool:
    """Return whether the destination of a log is a file."""
    return place.partition(":")[0] not in ("", "stderr", "journal", "syslog")
