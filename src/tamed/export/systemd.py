"""The systemd units that run a deployment, with matching timeouts, limits and a sandbox.

Each exception from the sandbox has its reason beside it. The units are for systemd 252 and later. The service
has ``Type=notify`` and ``ExecReload=tamed reload``, not ``Type=notify-reload``, which reports success
whatever the outcome of a reload is.

A user manager has no other users, no capabilities, and no way to hide files that works on every system: its
units have the rest of the sandbox.

systemd can listen itself, and pass the sockets by name. A service refers to them as ``systemd://NAME``, and
the operator specifies the address for the socket unit.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tamed.config.settings import names_file
from tamed.errors import ConfigurationError, ExitStatus, UsageError
from tamed.export.facts import Facts, files_of_command
from tamed.export.files import MadeFile
from tamed.net.endpoint import Endpoint, TcpEndpoint, UnixEndpoint, address_text

__all__ = ["Manager", "read_socket", "units_of"]

_Line = str | tuple[str, str]  # a line, or a name with its value

_UNIT = re.compile(r"[A-Za-z0-9:_.-]{1,200}")

_FOREVER = (  # a restart fixes none of these
    ExitStatus.USAGE,
    ExitStatus.NO_INPUT,
    ExitStatus.CANNOT_CREATE,
    ExitStatus.NO_PERMISSION,
    ExitStatus.CONFIGURATION,
)
_RESTART_SECONDS = 5  # more than StartLimitIntervalSec (10 s) divided by its five starts
_WATCHDOG_SECONDS = 30
_RUNDIR = "/run/tamed"
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - no file is made there
_LOOPBACK = ("127.0.0.1", "::1")
_ANY = ("0.0.0.0", "::")  # noqa: S104 - the operator has asked for it
_ANYWHERE = (
    ("NoNewPrivileges", "yes"),
    ("LockPersonality", "yes"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
)
_BY_SYSTEM = (
    ("ProtectSystem", "strict"),
    ("ProtectProc", "invisible"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("PrivateDevices", "yes"),
    ("DevicePolicy", "closed"),
    ("KeyringMode", "private"),
    ("RemoveIPC", "yes"),
)


class Manager(NamedTuple):
    """The manager of the units: the path of the command ``tamed`` there, and whether it is a user manager.

    ``is_split`` is whether each service of the deployment has its own unit, part of one target.
    """

    tamed: str
    is_user: bool = False
    is_split: bool = False

    @property
    def target(self) -> str:
        """The target that is started at boot, or at the login of the user."""
        return "default.target" if self.is_user else "multi-user.target"

    @property
    def instances(self) -> list[str]:
        """The options of a command for instances in root's run directory, or in that of the user."""
        return [] if self.is_user else ["--rundir", _RUNDIR]


def read_socket(text: str) -> tuple[str, Endpoint]:
    """Read ``NAME=ADDRESS``, with the address of an endpoint. Raises ValueError for anything else."""
    name, separator, address = text.partition("=")
    if not (name and separator):
        raise ValueError(f"expected NAME=ADDRESS, such as poems=:80, got {text!r}")
    endpoint = Endpoint.parse(address)
    if not isinstance(endpoint, TcpEndpoint | UnixEndpoint):
        raise ValueError(f"expected HOST:PORT or unix:PATH after {name}=, got {address!r}")  # noqa: TRY004 - of a text
    return name, endpoint


def units_of(facts: Facts, manager: Manager, made_by: str, sockets: Mapping[str, Endpoint]) -> list[MadeFile]:
    """Return the units of a deployment: one service, or one for each of its services, and the sockets.

    ``sockets`` are the addresses on which systemd listens. Raises UsageError for the name of one that no
    service refers to, and ConfigurationError for an address that systemd cannot listen on, and for a
    deployment that cannot be split, or that needs the system manager.
    """
    if unknown := next((name for name in sockets if name not in facts.sockets_of_systemd), None):
        known = ", ".join(facts.sockets_of_systemd) or "none"
        raise UsageError(f"--socket {unknown}", f"no service listens on systemd://{unknown} (known: {known})")
    if manager.is_user:
        _require_own_user(facts)
    if not manager.is_split:
        return [
            _service_unit(facts, manager, made_by, sockets, manager.target),
            *_socket_units(facts, sockets, made_by),
        ]
    _require_separable(facts)
    target = f"{facts.name}.target"
    content = _content(
        ("Unit", [("Description", _escaped(facts.description))]), ("Install", [("WantedBy", manager.target)])
    )
    files = [MadeFile(target, content, made_by)]
    for part in (facts.alone(name) for name, _ in facts.services):
        own = {name: endpoint for name, endpoint in sockets.items() if name in part.sockets_of_systemd}
        files += [_service_unit(part, manager, made_by, own, target), *_socket_units(part, own, made_by)]
    return files


def _require_own_user(facts: Facts) -> None:
    daemon = facts.settings.daemon
    for name in ("user", "group", "prepare_as_root", "keep_capability"):
        if getattr(daemon, name):
            why = "a user manager has only that user, without privileges"
            remedy = "remove it, or make a system unit, without --user"
            raise ConfigurationError(facts.place("daemon", name.replace("_", "-")), why, remedy)


def _require_separable(facts: Facts) -> None:
    """Raise ConfigurationError for resources that several daemons cannot share."""
    daemon, log = facts.settings
    files = {"pid-file": daemon.pid_file, "ops": daemon.ops, "ops-agent": daemon.ops_agent}
    places = [facts.place("daemon", name) for name, value in files.items() if value]
    places += [facts.place("log", "file")] if names_file(log.file) else []
    if places and len(facts.services) > 1:
        raise ConfigurationError(
            places[0], "split units cannot share it", "remove it, or export without --split"
        )
    owners: dict[str, str] = {}
    for each in facts.listening:
        name = each.socket_of_systemd
        if name and owners.setdefault(name, each.top) != each.top:
            where = facts.place(f"services.{each.top}", "listen")
            why = f"{owners[name]} uses {each.endpoint}, too, and split units cannot share it"
            raise ConfigurationError(where, why, "leave out --split, or use another socket")


def _require_unit_names(facts: Facts) -> None:
    """Raise ConfigurationError for a name that systemd would refuse: systemd.unit(5)."""
    table = f"services.{facts.only}" if facts.only else ""
    names = [(facts.name, facts.place(table, "name"))]
    names += [
        (each.socket_of_systemd, facts.place(f"services.{each.top}", "listen"))
        for each in facts.listening
        if each.socket_of_systemd
    ]
    for name, place in names:
        if not _UNIT.fullmatch(name):
            remedy = "use up to 200 ASCII letters, digits and :_.-"
            raise ConfigurationError(place, f"{name!r} cannot name a unit", remedy)


def _service_unit(
    facts: Facts, manager: Manager, made_by: str, sockets: Collection[str], wanted_by: str
) -> MadeFile:
    _require_unit_names(facts)
    content = _content(
        ("Unit", _unit(facts, manager, sockets, wanted_by)),
        ("Service", _service(facts, manager)),
        ("Install", [("WantedBy", wanted_by)]),
    )
    edit = "systemctl --user edit" if manager.is_user else "systemctl edit"
    advice = f"# Your own settings: {edit} {facts.name}\n\n"
    return MadeFile(f"{facts.name}.service", advice + content, made_by)


def _content(*sections: tuple[str, Iterable[_Line]]) -> str:
    return "\n".join(
        "\n".join([f"[{title}]", *(_written(line) for line in lines), ""]) for title, lines in sections
    )


def _written(line: _Line) -> str:
    text = line if isinstance(line, str) else f"{line[0]}={line[1]}"
    if not text.isprintable():  # a newline would begin another setting
        raise ConfigurationError("cannot make a unit", f"a line would contain {text!r}")
    return text


def _unit(facts: Facts, manager: Manager, sockets: Collection[str], wanted_by: str) -> Iterator[_Line]:
    yield "Description", _escaped(facts.description)
    if facts.only:
        yield "PartOf", wanted_by
    if not manager.is_user:
        yield "Wants", "network-online.target"
        yield "After", "network-online.target"
    for name in facts.sockets_of_systemd:
        if name not in sockets:
            yield f"# A socket unit with FileDescriptorName={name} provides the address of systemd://{name}."
        yield "Requires", f"{name}.socket"
        yield "After", f"{name}.socket"


def _service(facts: Facts, manager: Manager) -> Iterator[_Line]:
    yield from _process(facts, manager)
    yield ""
    yield from _directories_of_user(facts) if manager.is_user else _user(facts)
    yield ""
    yield from _ANYWHERE
    if not manager.is_user:
        yield from _sandbox(facts, manager)
    yield from _calls(facts)


def _process(facts: Facts, manager: Manager) -> Iterator[_Line]:
    daemon = facts.settings.daemon
    only = ["--service", facts.only] if facts.only else []
    workers = [] if daemon.is_supervised else ["--workers", "1"]
    options = ["--name", facts.name, *manager.instances, *only, *workers, *facts.plugin_options]
    yield "Type", "notify"
    yield "ExecStart", _command(manager.tamed, "run", *options, str(facts.file))
    yield "ExecReload", _command(manager.tamed, "reload", *manager.instances, facts.name)
    yield "WorkingDirectory", _escaped(str(daemon.directory or facts.file.parent))
    yield "Restart", "on-failure"
    yield "RestartSec", str(_RESTART_SECONDS)
    yield "RestartPreventExitStatus", " ".join(str(status) for status in _FOREVER)
    yield "TimeoutStartSec", str(facts.start_seconds)
    yield "TimeoutStopSec", str(facts.stop_seconds)
    yield "WatchdogSec", str(_WATCHDOG_SECONDS)
    yield "KillMode", "mixed"
    yield "# If the OOM killer kills a worker, Tamed replaces it; the others continue."
    yield "OOMPolicy", "continue"
    if daemon.max_files is not None:
        yield "LimitNOFILE", str(daemon.max_files)
    if (most := facts.most_kept_sockets) > 0:
        yield "# systemd keeps the listening sockets during a restart: no client is refused."
        yield "FileDescriptorStoreMax", str(most)
        yield "# systemd sets this itself since release 254."
        yield "Environment", f"FDSTORE={most}"


def _user(facts: Facts) -> Iterator[_Line]:
    daemon = facts.settings.daemon
    if _is_root(facts):
        yield '# Root, as configured in the deployment: prepare-as-root, or user = "root".'
    elif daemon.user or daemon.group:
        if daemon.user:
            yield "User", daemon.user
        if daemon.group:
            yield "Group", daemon.group
    else:
        yield "# The deployment names no user: this one exists while the service runs."
        yield "DynamicUser", "yes"
    yield "# Root's run directory, where `tamed status` and the other commands find the instance."
    yield "RuntimeDirectory", f"tamed/{facts.name}"
    if f"{_RUNDIR}/{facts.name}" in facts.unix_folders:
        yield "# It contains a unix socket, which outlives a restart."
        yield "RuntimeDirectoryPreserve", "restart"
    yield "StateDirectory", facts.name
    for name in facts.credentials:
        yield f"# Put the secret into /etc/credstore/{name}, or /etc/credstore.encrypted/{name}."
        yield "LoadCredential", _escaped(name)
    yield from _variables(facts, f"/etc/default/{facts.name}")
    own = f"{_RUNDIR}/{facts.name}", f"/var/lib/{facts.name}"
    if folders := [folder for folder in facts.writable_folders if folder not in own]:
        yield "ReadWritePaths", _command(*folders)


def _variables(facts: Facts, file: str) -> Iterator[_Line]:
    if facts.variables:
        yield f"# The file has lines NAME=VALUE for: {', '.join(facts.variables)}."
        yield "EnvironmentFile", f"-{file}"


def _directories_of_user(facts: Facts) -> Iterator[_Line]:
    if facts.low_ports:
        ports = ", ".join(map(str, facts.low_ports))
        yield f"# To bind port {ports}, the system must allow it: sysctl net.ipv4.ip_unprivileged_port_start."
    yield "StateDirectory", facts.name
    for name in facts.credentials:
        yield f"# Put the secret into ~/.config/credstore/{name}."
        yield "LoadCredential", f"{_escaped(name)}:%E/credstore/{_escaped(name)}"
    yield from _variables(facts, f"%E/{_escaped(facts.name)}.env")


def _is_root(facts: Facts) -> bool:
    daemon = facts.settings.daemon
    return daemon.prepare_as_root or daemon.user == "root"


def _sandbox(facts: Facts, manager: Manager) -> Iterator[_Line]:
    yield from _BY_SYSTEM
    yield from _capabilities(facts)
    program = files_of_command(manager.tamed)
    yield from _files([str(facts.file), *map(str, facts.plugin_dirs), *facts.writable_folders, *program])


def _calls(facts: Facts) -> Iterator[_Line]:
    yield "UMask", "0027" if names_file(facts.settings.log.file) or facts.writable_folders else "0077"
    if facts.runs_programs:
        yield "# A service runs programs: they may generate code, and use further system calls."
    else:
        yield "MemoryDenyWriteExecute", "yes"
    yield "SystemCallFilter", "@system-service"
    if not facts.runs_programs and not _is_root(facts):
        yield "SystemCallFilter", "~@privileged @resources"


def _capabilities(facts: Facts) -> Iterator[_Line]:
    if _is_root(facts):
        return
    kept = list(facts.settings.daemon.keep_capability)
    if facts.low_ports:
        ports = ", ".join(map(str, facts.low_ports))
        yield f"# To bind port {ports}, which is below 1024; therefore without PrivateUsers=."
        kept.append("CAP_NET_BIND_SERVICE")
    elif not kept:
        yield "PrivateUsers", "yes"
    yield "CapabilityBoundingSet", " ".join(dict.fromkeys(kept))
    yield "AmbientCapabilities", " ".join(dict.fromkeys(kept))


def _files(used: list[str]) -> Iterator[_Line]:
    paths = [Path(path) for path in used]
    homes = [path for path in paths if any(path.is_relative_to(home) for home in _HOMES)]
    shared = [path for path in paths if any(path.is_relative_to(folder) for folder in _TEMPORARY)]
    if homes:
        yield f"# {homes[0]} is in a home directory."
    yield "ProtectHome", "read-only" if homes else "yes"
    if shared:
        yield f"# {shared[0]} is in a folder for temporary files; therefore without PrivateTmp=."
    else:
        yield "PrivateTmp", "yes"


def _socket_units(facts: Facts, sockets: Mapping[str, Endpoint], made_by: str) -> Iterator[MadeFile]:
    for name, endpoint in sorted(sockets.items()):
        content = _content(
            ("Unit", [("Description", _escaped(f"Sockets {name} of {facts.name}"))]),
            ("Socket", _socket(facts, name, endpoint)),
            ("Install", [("WantedBy", "sockets.target")]),
        )
        yield MadeFile(f"{name}.socket", content, made_by)


def _socket(facts: Facts, name: str, endpoint: Endpoint) -> Iterator[_Line]:
    for is_datagram in sorted(
        {each.is_datagram for each in facts.listening if each.socket_of_systemd == name}
    ):
        for address in _addresses(name, endpoint):
            yield "ListenDatagram" if is_datagram else "ListenStream", address
    if isinstance(endpoint, UnixEndpoint):
        if not endpoint.abstract:
            yield "SocketMode", f"{0o666 if endpoint.mode is None else endpoint.mode:04o}"
            yield "RemoveOnStop", "yes"
    else:
        yield "# One socket for each family, so that IPv4 clients have IPv4 addresses."
        yield "BindIPv6Only", "ipv6-only"
    yield "FileDescriptorName", name
    yield "Service", f"{facts.name}.service"


def _addresses(name: str, endpoint: Endpoint) -> list[str]:
    if isinstance(endpoint, UnixEndpoint):
        if not endpoint.path.startswith(("/", "@")):
            raise ConfigurationError(f"--socket {name}", "the path is not absolute", "use an absolute path")
        return [_escaped(endpoint.path)]
    assert isinstance(endpoint, TcpEndpoint)
    hosts = {"": _ANY, "localhost": _LOOPBACK}.get(endpoint.host, (endpoint.host,))
    if not all(":" in host or host.replace(".", "").isdigit() for host in hosts):
        why = f"systemd does not resolve the host name {endpoint.host}"
        raise ConfigurationError(f"--socket {name}", why, "use a numeric address, or :PORT for all")
    return [address_text((host, endpoint.port)) for host in hosts]


def _command(*words: str) -> str:
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    """Return a word of a command line or a list, quoted where systemd.syntax(7) requires it."""
    escaped = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"' if any(one.isspace() or one in "\"'\\;" for one in word) else escaped


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
