"""A deployment in a container: its command, ports and writable folders, the ignored settings, and its image.

A container has a read-only root directory, one user without capabilities, and its log on standard error.
Contrary settings of a deployment are overridden on the command line, with a sentence in `Container.warnings`;
those that cannot be overridden are an error. Both have the line in the deployment file.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple, Self

from tamed._os.trust import TRUST_WRITABLE
from tamed.config.settings import names_file
from tamed.errors import ConfigurationError, UsageError
from tamed.export.facts import Facts, Listening
from tamed.export.files import MadeFile
from tamed.net.endpoint import Endpoint, FdEndpoint, SystemdEndpoint, UnixEndpoint

__all__ = ["CREDENTIALS", "FOLDER", "RUN", "RUNDIR", "USER", "Container", "Port", "Resources", "image_of"]

FOLDER = Path("/app")
"""The folder of the deployment file, and of the files that it refers to, in a container."""

RUN = "/run"
RUNDIR = f"{RUN}/tamed"
"""The run directory. Tamed creates it, because it refuses a directory that others can write to."""

CREDENTIALS = "/run/secrets"
USER = 65532  # "nonroot" of the usual base images, and of no Debian package
_OPS_PORT = 9321
_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1035, which Kubernetes requires for a Service
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)")
_SHARES = {"": Decimal(1), "m": Decimal("0.001")}
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_BASE = "docker.io/library/python:3.13-slim"
_ENVIRONMENT = "/opt/tamed"
_IGNORED = (
    "# Secrets and build artefacts do not belong in an image.",
    ".*",
    "**/__pycache__",
    "**/*.key",
    "**/*.log",
    "**/*.pem",
    "secrets",
    "Containerfile",
    "compose.yaml",
    "venv",
)


class Port(NamedTuple):
    """A port for clients outside the container: its number, its service's name, and whether it is UDP."""

    number: int
    name: str
    is_datagram: bool

    @property
    def protocol(self) -> str:
        """Its protocol, as in manifests."""
        return "UDP" if self.is_datagram else "TCP"


class Resources(NamedTuple):
    """The limits of a container: CPUs as ``2`` or ``500m``, memory as ``256Mi``, None for no limit."""

    cpu: str | None = None
    memory: str | None = None

    @property
    def cpus(self) -> Decimal | None:
        """The number of CPUs. Raises UsageError for an invalid text."""
        return None if self.cpu is None else _quantity("--cpu", self.cpu, _SHARES)

    @property
    def bytes(self) -> int | None:
        """The memory in bytes. Raises UsageError for an invalid text."""
        units = {unit: Decimal(number) for unit, number in _BYTES.items()}
        return None if self.memory is None else int(_quantity("--memory", self.memory, units))


class Container(NamedTuple):
    """A deployment in a container. ``command`` is its complete command line; ``ports`` are sorted by number.

    ``ops`` is the port of its operations endpoint. ``folders`` are those that it writes to, besides its run
    directory. ``lowest_port`` is the first port that unprivileged users must be able to bind, None if the
    kernel's default suffices. ``stop_seconds`` is the longest time of a stop, with a margin. ``warnings`` are
    sentences for people.
    """

    facts: Facts
    command: tuple[str, ...]
    ports: tuple[Port, ...]
    ops: int
    folders: tuple[str, ...]
    stop_seconds: int
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, facts: Facts, tamed: str = "tamed", stop_delay: int = 0) -> Self:
        """Put a deployment into a container in which ``tamed`` is the command.

        ``stop_delay`` is used for a deployment without one, in seconds. Raises ConfigurationError for a
        deployment that cannot run in a container.
        """
        _require_possible(facts)
        ports = tuple(_ports(facts))
        taken = {port.number for port in ports if not port.is_datagram}
        ops = _port_of(facts.settings.daemon.ops) or _OPS_PORT
        while ops in taken:
            ops += 1
        delay = 0 if facts.settings.daemon.stop_delay else stop_delay
        return cls(
            facts,
            tuple(_command(facts, tamed, ops, delay)),
            ports,
            ops,
            tuple(_folders(facts)),
            facts.stop_seconds + delay,
            tuple(_warnings(facts)),
        )

    @property
    def lowest_port(self) -> int | None:
        """The lowest of the ports that need a privilege outside a container."""
        return min(self.facts.low_ports, default=None)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that are the same for every platform."""
        credentials = {"CREDENTIALS_DIRECTORY": CREDENTIALS} if self.facts.credentials else {}
        return {
            "HOME": "/tmp",  # noqa: S108 - a volume of its own
            "PYTHONDONTWRITEBYTECODE": "1",
            TRUST_WRITABLE: "1",  # a volume is writable for all, and there is only one user
            **credentials,
        }


def _require_possible(facts: Facts) -> None:
    if not _LABEL.fullmatch(facts.name):
        why = f"{facts.name!r} cannot name anything in a cluster"
        remedy = "use up to 63 lower-case letters, digits and dashes, a letter first"
        raise ConfigurationError(facts.place("", "name"), why, remedy)
    if facts.settings.daemon.keep_capability:
        remedy = "remove it: a port below 1024 needs none there"
        raise ConfigurationError(
            facts.place("daemon", "keep-capability"), "a container has no capabilities", remedy
        )
    for each in facts.listening:
        where = _place_of(facts, each)
        if isinstance(each.endpoint, SystemdEndpoint | FdEndpoint):
            remedy = "use an address, such as :8000"
            raise ConfigurationError(
                where, f"{each.endpoint}: a container gets no sockets from outside", remedy
            )
        if each.port == 0:
            why = "port 0 is a different port in each container"
            raise ConfigurationError(where, why, "use a fixed port")


def _place_of(facts: Facts, listening: Listening) -> str:
    return facts.place(f"services.{listening.top}", "listen", "port")


def _port_of(endpoint: str) -> int | None:
    """Return the port of an endpoint's text; None for one without a port, and for port 0."""
    return (getattr(Endpoint.parse(endpoint), "port", None) if endpoint else None) or None


def _ports(facts: Facts) -> Iterator[Port]:
    found: dict[tuple[int, bool], str] = {}
    for each in facts.listening:
        if each.port is not None and not each.is_local:
            found.setdefault((each.port, each.is_datagram), each.top)
    names: set[str] = set()
    for (number, is_datagram), service in sorted(found.items()):
        name = _port_name(service)
        name = name if name not in names else f"port-{number}"
        name = name if name not in names else f"{name}-udp"
        names.add(name)
        yield Port(number, name, is_datagram)


def _port_name(service: str) -> str:
    """Return a name of at most 15 letters, digits and single dashes (RFC 6335)."""
    name = re.sub(r"[^a-z0-9]+", "-", service.lower())[:15].strip("-")
    return name if re.search("[a-z]", name) and name != "ops" else f"port-{name}"[:15].strip("-")


def _command(facts: Facts, tamed: str, ops: int, delay: int) -> Iterator[str]:
    daemon, log = facts.settings
    yield from (tamed, "run", "--name", facts.name, "--rundir", RUNDIR)
    if daemon.workers is None:
        yield from ("--workers", "1")
    yield from ("--ops", f":{ops}")
    if delay:
        yield from ("--stop-delay", f"{delay}s")
    if log.file not in ("", "stderr"):
        yield from ("--log-file", "stderr")
    for name in ("user", "group"):
        if getattr(daemon, name):
            yield f"--{name}="
    if daemon.prepare_as_root:
        yield "--no-prepare-as-root"
    yield from facts.plugin_options
    yield str(facts.file)


def _folders(facts: Facts) -> Iterator[str]:
    log = facts.settings.log.file
    written = set(facts.writable_folders)
    if names_file(log):
        written.discard(str(facts.file.parent.joinpath(log).parent))
    for folder in sorted(written):
        here = facts.source.parent.resolve()
        there = Path(folder)
        if there.is_relative_to(here):
            there = facts.file.parent / there.relative_to(here)
        if facts.file.is_relative_to(there):
            why = f"it would write to {there}, which is read-only in a container"
            sockets = [each for each in facts.listening if isinstance(each.endpoint, UnixEndpoint)]
            where = _place_of(facts, sockets[0]) if sockets else facts.place("daemon", "pid-file")
            raise ConfigurationError(where, why, f"use another folder, such as {RUN}")
        if not there.is_relative_to(RUN):
            yield str(there)


def _warnings(facts: Facts) -> Iterator[str]:
    daemon, log = facts.settings
    for name in ("user", "group"):
        if getattr(daemon, name):
            yield f"{facts.place('daemon', name)} is ignored: a container has one user, {USER}"
    if daemon.prepare_as_root:
        yield f"{facts.place('daemon', 'prepare-as-root')} is ignored: nothing in a container is root"
    if daemon.reload:
        yield f"{facts.place('daemon', 'reload')} is ignored: the files of a container do not change"
    if log.file not in ("", "stderr"):
        yield f"{facts.place('log', 'file')} is ignored: a container logs to stderr"
    if daemon.ops and not daemon.ops.startswith(":"):
        yield (
            f"{facts.place('daemon', 'ops')} is replaced: probes come from outside the container,"
            " so it listens on all addresses"
        )
    yield from _warnings_of_places(facts)


def _warnings_of_places(facts: Facts) -> Iterator[str]:
    for folder in facts.plugin_dirs:
        if not folder.is_relative_to(facts.file.parent):
            yield f"the folder of plugins {folder} is not beside the deployment file: the image must have it"
    for each in facts.listening:
        where = _place_of(facts, each)
        if isinstance(each.endpoint, UnixEndpoint):
            yield f"{where}: {each.endpoint} is not accessible from outside the container"
        elif each.is_local:
            why = "is not accessible from outside the container"
            yield f"{where}: {each.endpoint} {why}; use an address such as :{each.port}"


def _quantity(option: str, text: str, units: dict[str, Decimal]) -> Decimal:
    found = _QUANTITY.fullmatch(text)
    if found is None or found[2] not in units or not (number := Decimal(found[1]) * units[found[2]]):
        example = "2 or 500m" if option == "--cpu" else "256Mi or 1Gi"
        raise UsageError(f"invalid value {text!r} for {option}", f"expected a quantity such as {example}")
    return number


def image_of(container: Container, made_by: str) -> list[MadeFile]:
    """Return the Containerfile and its ignore file, for the folder of the deployment file.

    There are two stages, so that the image has no compiler and no cache; both use the same base image,
    because the environment of the first stage refers to its interpreter. Each package is installed with its
    hash.
    """
    return [
        MadeFile("Containerfile", "\n".join([*_containerfile(container), ""]), made_by),
        MadeFile(".dockerignore", "\n".join([*_IGNORED, ""]), made_by),
    ]


def _containerfile(container: Container) -> Iterator[str]:
    facts = container.facts
    yield "# With a digest, the same file always makes the same image:"
    yield f"#   --build-arg BASE={_BASE}@sha256:..."
    yield f"ARG BASE={_BASE}"
    yield ""
    yield "FROM ${BASE} AS build"
    yield "WORKDIR /build"
    yield "# requirements.txt contains tamed[ops] and the packages of your code, each with its hash, made by"
    yield "#   uv pip compile --generate-hashes"
    yield "# Put wheels of packages that are in no index beside it."
    yield "COPY requirements.txt *.whl ./"
    yield f"RUN python3 -m venv {_ENVIRONMENT}"
    yield (
        f"RUN {_ENVIRONMENT}/bin/pip install --no-cache-dir --disable-pip-version-check"
        " --require-hashes --find-links . --requirement requirements.txt"
    )
    yield ""
    yield "FROM ${BASE}"
    yield f"COPY --from=build {_ENVIRONMENT} {_ENVIRONMENT}"
    yield f"COPY . {facts.file.parent}"
    variables = {"PATH": f"{_ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin", **container.environment}
    yield from (f"ENV {name}={json.dumps(value)}" for name, value in variables.items())
    yield f"WORKDIR {facts.file.parent}"
    yield f"USER {USER}:{USER}"
    for port in container.ports:
        yield f"EXPOSE {port.number}/{port.protocol.lower()}"
    yield f"EXPOSE {container.ops}/tcp"
    yield "STOPSIGNAL SIGTERM"
    yield f"CMD {json.dumps(list(container.command))}"
