"""The units of systemd that run a deployment, with times, limits and a sandbox that fit it.

What the sandbox leaves open has its reason beside it. They are for systemd 252 and later. The service has
``Type=notify`` and ``ExecReload=tamed reload``, and not ``Type=notify-reload``: that one reports a success
whatever the outcome of a reload is.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tamed.config.settings import names_file
from tamed.errors import ExitStatus
from tamed.export.facts import Facts
from tamed.export.files import MadeFile
from tamed.export.socket_units import socket_units_of
from tamed.net.endpoint import Endpoint

__all__ = ["units_of"]

_Line = str | tuple[str, str]  # a line as it is, or a name with its value

_FOREVER = (  # a restart mends none of these
    ExitStatus.USAGE,
    ExitStatus.NO_INPUT,
    ExitStatus.CANNOT_CREATE,
    ExitStatus.NO_PERMISSION,
    ExitStatus.CONFIGURATION,
)
_RESTART_SECONDS = 5  # more than the ten seconds of StartLimitIntervalSec by its five starts
_WATCHDOG_SECONDS = 30
_RUNDIR = "/run/tamed"
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - no file is made there
_ALWAYS = (
    ("NoNewPrivileges", "yes"),
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
    ("LockPersonality", "yes"),
    ("RemoveIPC", "yes"),
    ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
)


def units_of(
    facts: Facts, tamed: str, made_by: str, sockets: Mapping[str, Endpoint] | None = None
) -> list[MadeFile]:
    """Return the units of a deployment: a service, and a socket unit for each of ``sockets``.

    ``tamed`` is the path of the command on the system that they are for. Raises as `socket_units_of` does.
    """
    given = sockets or {}
    sections = (("Unit", _unit(facts, given)), ("Service", _service(facts, tamed)), ("Install", _install()))
    content = "\n".join(
        "\n".join([f"[{title}]", *(_written(line) for line in lines), ""]) for title, lines in sections
    )
    advice = f"# Your own settings: systemctl edit {facts.name}\n\n"
    service = MadeFile(f"{facts.name}.service", advice + content, made_by)
    return [service, *socket_units_of(facts, given, made_by)]


def _written(line: _Line) -> str:
    return line if isinstance(line, str) else f"{line[0]}={line[1]}"


def _unit(facts: Facts, sockets: Collection[str]) -> Iterator[_Line]:
    yield "Description", _escaped(facts.description)
    yield "Wants", "network-online.target"
    yield "After", "network-online.target"
    for name in facts.sockets_of_systemd:
        if name not in sockets:
            yield f"# A socket unit with FileDescriptorName={name} has the address of systemd://{name}."
        yield "Requires", f"{name}.socket"
        yield "After", f"{name}.socket"


def _service(facts: Facts, tamed: str) -> Iterator[_Line]:
    yield from _process(facts, tamed)
    yield ""
    yield from _user(facts)
    yield ""
    yield from _sandbox(facts)


def _process(facts: Facts, tamed: str) -> Iterator[_Line]:
    daemon = facts.settings.daemon
    instance = ["--name", facts.name, "--rundir", _RUNDIR]
    workers = [] if daemon.is_supervised else ["--workers", "1"]
    yield "Type", "notify"
    yield "ExecStart", _command(tamed, "run", *instance, *workers, *facts.plugin_options, str(facts.file))
    yield "ExecReload", _command(tamed, "reload", "--rundir", _RUNDIR, facts.name)
    yield "WorkingDirectory", _escaped(str(daemon.directory or facts.file.parent))
    yield "Restart", "on-failure"
    yield "RestartSec", str(_RESTART_SECONDS)
    yield "RestartPreventExitStatus", " ".join(str(status) for status in _FOREVER)
    yield "TimeoutStartSec", str(facts.start_seconds)
    yield "TimeoutStopSec", str(facts.stop_seconds)
    yield "WatchdogSec", str(_WATCHDOG_SECONDS)
    yield "KillMode", "mixed"
    yield "# If the kernel kills a worker for its memory, Tamed replaces it; the others go on."
    yield "OOMPolicy", "continue"
    if daemon.max_files is not None:
        yield "LimitNOFILE", str(daemon.max_files)
    if (most := facts.most_kept_sockets) > 0:
        yield "# systemd holds the listening sockets during a restart: no client is refused."
        yield "FileDescriptorStoreMax", str(most)
        yield "# systemd sets this itself since release 254."
        yield "Environment", f"FDSTORE={most}"


def _user(facts: Facts) -> Iterator[_Line]:
    daemon = facts.settings.daemon
    if daemon.prepare_as_root or daemon.user == "root":
        yield '# Root, as the deployment says: prepare-as-root, or user = "root".'
    elif daemon.user or daemon.group:
        if daemon.user:
            yield "User", daemon.user
        if daemon.group:
            yield "Group", daemon.group
    else:
        yield "# A user that exists as long as the service runs: the deployment names none."
        yield "DynamicUser", "yes"
    yield "# Root's own run directory: `tamed status` and the other commands find it by its name."
    yield "RuntimeDirectory", f"tamed/{facts.name}"
    if f"{_RUNDIR}/{facts.name}" in facts.unix_folders:
        yield "# A unix socket is in it, which outlives a restart."
        yield "RuntimeDirectoryPreserve", "restart"
    yield "StateDirectory", facts.name
    for name in facts.credentials:
        yield f"# The secret is in /etc/credstore/{name}, or /etc/credstore.encrypted/{name}."
        yield "LoadCredential", _escaped(name)
    if folders := _given_folders(facts):
        yield "ReadWritePaths", " ".join(_word(folder) for folder in folders)


def _given_folders(facts: Facts) -> list[str]:
    own = f"{_RUNDIR}/{facts.name}", f"/var/lib/{facts.name}"
    return [folder for folder in facts.writable_folders if folder not in own]


def _is_root(facts: Facts) -> bool:
    daemon = facts.settings.daemon
    return daemon.prepare_as_root or daemon.user == "root"


def _sandbox(facts: Facts) -> Iterator[_Line]:
    yield from _ALWAYS
    yield from _capabilities(facts)
    yield from _files(facts, [str(facts.file), *map(str, facts.plugin_dirs), *facts.writable_folders])
    if facts.runs_programs:
        yield "# A service runs programs: they may generate code, and make other calls than a service does."
        yield "SystemCallFilter", "@system-service"
    else:
        yield "MemoryDenyWriteExecute", "yes"
        yield "SystemCallFilter", "@system-service"
        if not _is_root(facts):
            yield "SystemCallFilter", "~@privileged @resources"


def _capabilities(facts: Facts) -> Iterator[_Line]:
    kept = list(facts.settings.daemon.keep_capability)
    if _is_root(facts):
        return
    if facts.low_ports:
        ports = ", ".join(map(str, facts.low_ports))
        yield f"# To bind port {ports}, which is below 1024; therefore without PrivateUsers=."
        kept.append("CAP_NET_BIND_SERVICE")
    elif not kept:
        yield "PrivateUsers", "yes"
    yield "CapabilityBoundingSet", " ".join(dict.fromkeys(kept))
    yield "AmbientCapabilities", " ".join(dict.fromkeys(kept))


def _files(facts: Facts, used: list[str]) -> Iterator[_Line]:
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
    yield "UMask", "0027" if names_file(facts.settings.log.file) or facts.writable_folders else "0077"


def _install() -> Iterator[_Line]:
    yield "WantedBy", "multi-user.target"


def _command(*words: str) -> str:
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    """Return a word of a command line or a list, quoted where systemd.syntax(7) asks for it."""
    escaped = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"' if any(one.isspace() or one in "\"'\\;" for one in word) else escaped


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
