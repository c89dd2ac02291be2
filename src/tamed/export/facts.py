"""The requirements of a deployment on its system, found by loading it as `tamed check` does.

Messages have the line of a key. TOML parsers keep no line numbers, so they are found in the text, from table
headers and keys at the beginning of lines. A key in an inline table has the line of that table.
"""

import math
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from tamed.config.deployment import Deployment
from tamed.config.job import Job, Reading, TargetKind
from tamed.config.kinds import resolve
from tamed.config.load import load
from tamed.config.settings import Settings, names_file
from tamed.errors import ConfigurationError, TamedError, UsageError
from tamed.net.endpoint import Endpoint, FdEndpoint, SystemdEndpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint
from tamed.net.listen import ListeningService
from tamed.plugins.build import named_in
from tamed.unix.rundir import check_name

__all__ = [
    "Facts",
    "Listening",
    "command_of_this_installation",
    "files_of_command",
    "name_of",
    "place_of",
    "with_lines",
]

_RUN_PROGRAMS = ("exec", "inetd")
_INHERITED = (FdEndpoint, SystemdEndpoint)
_LOWEST_FREE = 1024
_ABORTING = 20  # seconds for a supervisor to abort, kill and reap remaining processes at its deadline
_HEAD = re.compile(r"\s*\[([^\[\]]+)\]")
_KEY = re.compile(r"\s*([\w\"'. -]+?)\s*=")
_UNKNOWN = re.compile(r"unknown key '([^']+)'")


class Listening(NamedTuple):
    """A service that listens: its path in the application, an endpoint, and whether it takes datagrams."""

    service: str
    endpoint: Endpoint
    is_datagram: bool

    @property
    def top(self) -> str:
        """The name in the deployment file of this service, or of the one it is part of."""
        return self.service.partition("/")[0]

    @property
    def socket_of_systemd(self) -> str:
        """The name of the socket that systemd must pass, empty if it passes none."""
        return self.endpoint.socket_name if isinstance(self.endpoint, SystemdEndpoint) else ""

    @property
    def port(self) -> int | None:
        """Its port, None if it has none; the kernel replaces 0."""
        return self.endpoint.port if isinstance(self.endpoint, TcpEndpoint | TlsEndpoint) else None

    @property
    def is_local(self) -> bool:
        """Whether only clients on this machine can connect."""
        if isinstance(self.endpoint, TcpEndpoint | TlsEndpoint):
            return self.endpoint.host in ("localhost", "127.0.0.1", "::1")
        return True


class Facts(NamedTuple):
    """A deployment, as far as it concerns the system that it runs on.

    ``file`` is the path of the deployment file on that system, ``source`` its path here, and ``text`` its
    content. ``plugin_dirs`` are the folders of plugins there. ``services`` are the names of its services,
    each with its plugin or application, and ``of_host`` those of which one runs on a machine. ``credentials``
    and ``variables`` are the credentials and environment variables that it refers to. ``only`` is the service
    that runs without the others, empty for all.
    """

    file: Path
    source: Path
    text: str
    plugin_dirs: tuple[Path, ...]
    name: str
    settings: Settings
    services: tuple[tuple[str, str], ...]
    of_host: tuple[str, ...]
    listening: tuple[Listening, ...]
    credentials: tuple[str, ...]
    variables: tuple[str, ...]
    only: str = ""

    @classmethod
    def of(cls, file: Path, path: Path | None = None, plugin_dirs: tuple[Path, ...] = ()) -> Self:
        """Load a deployment file, whose path on the other system is ``path``, by default its path here.

        Environment variables that set options are ignored, so the same file always has the same facts;
        variables that it refers to as ``${NAME}`` are used. Raises UsageError for a target that is not a
        deployment file, and otherwise as `tamed.config.load.load` does.
        """
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TAMED_")}
        reading = _reading_of(file, plugin_dirs, environ)
        deployment, daemon = reading.deployment, reading.settings.daemon
        assert deployment is not None
        if daemon.chroot is not None:
            why = "files that a start needs are outside that folder"
            remedy = "remove it: a unit has RootDirectory=, and a container has its own root directory"
            raise ConfigurationError(place_of(file, deployment.text, "daemon", "chroot"), why, remedy)
        credentials, variables = _named_in(deployment, "credential:"), _named_in(deployment, "${}", "env:")
        for name in _named_in(deployment, "env:"):
            environ.setdefault(name, "stand-in")
        with _stand_ins(credentials) as folder:  # the real credentials are on the other system
            environ["CREDENTIALS_DIRECTORY"] = folder
            application = load(reading)
        return cls(
            (path or file).absolute(),
            file,
            deployment.text,
            tuple(_moved(folder, file, path or file) for folder in plugin_dirs),
            check_name(reading.name),
            reading.settings,
            tuple((each.name, each.plugin or str(each.application)) for each in deployment.services),
            tuple(service.full_name for service in application.walk() if service.only == "host"),
            tuple(
                Listening(service.full_name, endpoint, service.socket_kind.name == "SOCK_DGRAM")
                for service in application.walk()
                if isinstance(service, ListeningService)
                for endpoint in service.endpoints
            ),
            credentials,
            variables,
        )

    def alone(self, service: str) -> Self:
        """Return the facts of a separate daemon for one service; its name consists of both names."""
        deployment = Deployment.parse(self.text, self.source).only([service])
        return self._replace(
            name=check_name(f"{self.name}-{service}"),
            services=tuple(each for each in self.services if each[0] == service),
            of_host=tuple(each for each in self.of_host if each.partition("/")[0] == service),
            listening=tuple(each for each in self.listening if each.top == service),
            credentials=_named_in(deployment, "credential:"),
            variables=_named_in(deployment, "${}", "env:"),
            only=service,
        )

    def place(self, table: str, *keys: str) -> str:
        """Return the place of the first existing key in the file: ``verse.toml:3: daemon.user``."""
        return place_of(self.source, self.text, table, *keys)

    @property
    def description(self) -> str:
        """A line that describes it: ``verse: ecstasy (fastpoetry), science (fastpoetry)``."""
        return f"{self.name}: {', '.join(f'{name} ({maker})' for name, maker in self.services)}"

    @property
    def plugin_options(self) -> list[str]:
        """The words of a command line that name its folders of plugins."""
        return [word for folder in self.plugin_dirs for word in ("--plugin-dir", str(folder))]

    @property
    def runs_programs(self) -> bool:
        """Whether a service runs programs of any kind."""
        return any(maker in _RUN_PROGRAMS for _, maker in self.services)

    @property
    def low_ports(self) -> list[int]:
        """The ports that need a privilege."""
        ports = {each.port or 0 for each in self.listening}
        return sorted(port for port in ports if 0 < port < _LOWEST_FREE)

    @property
    def sockets_of_systemd(self) -> list[str]:
        """The names of the sockets that systemd must pass."""
        return sorted({each.socket_of_systemd for each in self.listening} - {""})

    @property
    def most_kept_sockets(self) -> int:
        """The maximum number of its sockets: during a reload the old ones, and as many new ones."""
        own = [each.endpoint for each in self.listening if not isinstance(each.endpoint, _INHERITED)]
        families = [1 if isinstance(each, UnixEndpoint) else 2 for each in own]  # a name may be IPv4 and IPv6
        return 2 * sum(families)

    @property
    def unix_folders(self) -> list[str]:
        """The folders of its unix sockets."""
        paths = [
            each.endpoint.path
            for each in self.listening
            if isinstance(each.endpoint, UnixEndpoint) and not each.endpoint.abstract
        ]
        return sorted({str(self.file.parent.joinpath(path).parent) for path in paths})

    @property
    def writable_folders(self) -> list[str]:
        """The folders in which it creates files: for unix sockets, the log file and the pid file."""
        daemon, log = self.settings
        files = [log.file] if names_file(log.file) else []
        files += [str(daemon.pid_file)] if daemon.pid_file is not None else []
        return sorted({*self.unix_folders, *(str(self.file.parent.joinpath(file).parent) for file in files)})

    @property
    def start_seconds(self) -> int:
        """The longest time of a start, in seconds, with a margin."""
        return math.ceil(self.settings.daemon.start_timeout) + _ABORTING

    @property
    def stop_seconds(self) -> int:
        """The longest time of a stop, in seconds, with a margin."""
        daemon = self.settings.daemon
        return math.ceil(daemon.stop_delay + daemon.longest_stop) + _ABORTING


def _named_in(deployment: Deployment, *kinds: str) -> tuple[str, ...]:
    """Return the names of these kinds that a deployment refers to, sorted."""
    tables = [deployment.daemon, deployment.log, *(each.table for each in deployment.services)]
    return tuple(sorted({name for kind, name in named_in(tables) if kind in kinds}))


def _moved(folder: Path, file: Path, other: Path) -> Path:
    """Return a folder's path on a system where ``file`` is ``other``: relative to it, or unchanged."""
    here = file.absolute().parent
    return other.absolute().parent / folder.relative_to(here) if folder.is_relative_to(here) else folder


@contextmanager
def _stand_ins(credentials: Iterable[str]) -> Iterator[str]:
    """Yield a folder with placeholder files of these names, sufficient to construct the services."""
    with tempfile.TemporaryDirectory(prefix="tamed-export-") as folder:
        for name in credentials:
            if name and "/" not in name:
                Path(folder, name).write_text("stand-in", "utf-8")
        yield folder


def name_of(file: Path, plugin_dirs: tuple[Path, ...] = ()) -> str:
    """Return the name of a deployment, without loading its code. Raises as `Facts.of` does."""
    return check_name(_reading_of(file, plugin_dirs, {}).name)


def _reading_of(file: Path, plugin_dirs: tuple[Path, ...], environ: dict[str, str]) -> Reading:
    target = resolve(str(file), plugin_dirs)
    if target.kind is not TargetKind.DEPLOYMENT:
        raise UsageError(f"cannot export {file}", "it is not a deployment file", "use a FILE.toml")
    return Reading.of(Job(target, plugin_dirs=plugin_dirs, environ=environ))


def command_of_this_installation() -> str:
    """Return the path of the command ``tamed`` that belongs to this interpreter."""
    return str(Path(sysconfig.get_path("scripts") or Path(sys.executable).parent, "tamed"))


def files_of_command(tamed: str) -> list[str]:
    """Return a command ``tamed`` and, if it is that of this interpreter, the interpreter without links.

    A virtual environment may be in another place than the interpreter that it was made with.
    """
    is_ours = tamed == command_of_this_installation()
    return [tamed, str(Path(sys.executable).resolve())] if is_ours else [tamed]


def place_of(file: Path, text: str, table: str, *keys: str) -> str:
    """Return the file, the line and the name of the first of these keys, or of their table.

    ``text`` is the content of the file. Without a line number if none of them is at the beginning of a line.
    """
    lines = _lines_of(text)
    names = [".".join(filter(None, (table, key))) for key in keys]
    parts = (each for each in lines if table and each.startswith(f"{table}."))
    name = next((each for each in (*names, table, *parts) if each in lines), table or keys[0])
    return f"{file}:{lines[name]}: {name}" if name in lines else f"{file}: {name}"


@contextmanager
def with_lines(file: Path) -> Iterator[None]:
    """Add the line number to each error of the block that names a key of this deployment file."""
    try:
        yield
    except TamedError as error:
        wrong = [each for each in (error, *error.others) if f"{each.what}: ".startswith(f"{file}: ")]
        if wrong:
            lines = _lines_of(file.read_text("utf-8", errors="replace"))
            for each in wrong:
                _add_line(each, file, lines)
        raise


def _add_line(error: TamedError, file: Path, lines: dict[str, int]) -> None:
    rest = error.what.removeprefix(str(file))
    name = rest.removeprefix(": ").partition(": ")[0]
    unknown = _UNKNOWN.match(error.why) if isinstance(error, ConfigurationError) else None
    parents = [name.rsplit(".", count)[0] for count in range(name.count(".") + 1)]
    names = [f"{name}.{unknown[1]}".lstrip(".")] if unknown else []
    if found := next((each for each in (*names, *parents) if each in lines), ""):
        error.what = f"{file}:{lines[found]}{rest}"


def _lines_of(text: str) -> dict[str, int]:
    """Return the line number of each key and each table, by its full name."""
    lines: dict[str, int] = {}
    head = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _HEAD.match(line):
            head = _dotted(found[1])
            lines.setdefault(head, number)
        elif key := _KEY.match(line):
            lines.setdefault(".".join(filter(None, (head, _dotted(key[1])))), number)
    return lines


def _dotted(key: str) -> str:
    """Return a TOML key without quotes and spaces. Quoted dots do not occur in the names here."""
    return re.sub("[\"' ]", "", key)
