"""The servers of an engine, each on a machine of its own.

Three nodes of etcd or NATS, one PostgreSQL, or one API server of Kubernetes, that of the tests.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.cluster.api_server import write_credentials
from tests.cluster.servers import PASSWORD, as_other
from tests.fleet.machines import Machine
from tests.patience import PATIENCE
from tests.supervised.daemon import wait_for

__all__ = ["ENGINES", "Kind", "Node", "Servers"]

_ETCD, _NATS, _INITDB = "usr/bin/etcd", "usr/sbin/nats-server", "usr/lib/postgresql/*/bin/initdb"
_AS_NOBODY: Final = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


class Node:
    """A server on a machine, which keeps its data."""

    def __init__(self, machine: Machine, command: Sequence[str | Path], log: Path) -> None:
        self.machine = machine
        self._command = [*machine.before, *map(str, command)]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes; after SIGKILL they are gone when this returns."""
        self.machine.signal(number)
        if number is signal.SIGKILL and self._process is not None:
            self._process.wait(PATIENCE)
            wait_for("the end of a server", lambda: not self.machine.pids())


class Servers(NamedTuple):
    """All of an engine, and the URL that hosts are given."""

    nodes: list[Node]
    url: str


class Kind(NamedTuple):
    """A kind of engine: how many machines it takes, and the glob of its program."""

    machines: int
    make: Callable[[list[Machine], Path], Servers]
    program: str

    @property
    def is_installed(self) -> bool:
        """Whether its server can be run."""
        return bool(_found(self.program))


def _found(pattern: str) -> list[Path]:
    return sorted(Path("/").glob(pattern))


def _etcd(machines: list[Machine], folder: Path) -> Servers:
    cluster = ",".join(f"{each.name}=http://{each.address}:2380" for each in machines)
    nodes = []
    for machine in machines:
        clients, peers = (f"http://{machine.address}:{port}" for port in (2379, 2380))
        command: list[str | Path] = [
            *(*_AS_NOBODY, Path("/", _ETCD), "--name", machine.name),
            *("--data-dir", folder / machine.name, "--unsafe-no-fsync"),
            *("--listen-client-urls", clients, "--advertise-client-urls", clients),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", cluster),
        ]
        nodes.append(Node(machine, command, folder / f"{machine.name}.log"))
    return Servers(nodes, f"etcd://{_addresses(machines)}")


def _nats(machines: list[Machine], folder: Path) -> Servers:
    routes = ",".join(f"nats://{each.address}:6222" for each in machines)
    nodes = []
    for machine in machines:
        command: list[str | Path] = [
            *(
                *_AS_NOBODY,
                Path("/", _NATS),
                "--name",
                machine.name,
                "--addr",
                machine.address,
                "--port",
                "4222",
            ),
            *("--jetstream", "--store_dir", folder / machine.name, "--cluster_name", "fleet"),
            *("--cluster", f"nats://{machine.address}:6222", "--routes", routes),
        ]
        nodes.append(Node(machine, command, folder / f"{machine.name}.log"))
    return Servers(nodes, f"nats://{_addresses(machines)}?replicas=3")


def _postgres(machines: list[Machine], folder: Path) -> Servers:
    (machine,) = machines
    data, password = folder / machine.name, folder / "password"
    password.write_text(PASSWORD + "\n")
    initdb = _found(_INITDB)[-1]
    options = ["--auth=scram-sha-256", f"--pwfile={password}", "--locale=C", "--encoding=UTF8", "--no-sync"]
    subprocess.run(
        [initdb, "-D", data, "-U", "tamed", *options],
        cwd=folder, check=True, capture_output=True, **as_other(folder),
    )  # fmt: skip
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/24 scram-sha-256\n")
    settings = {"listen_addresses": machine.address, "unix_socket_directories": "", "fsync": "off"}
    command: list[str | Path] = [*_AS_NOBODY, initdb.with_name("postgres"), "-D", data]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    url = f"postgres://tamed@{machine.address}/postgres?password-file={password}"
    return Servers([Node(machine, command, folder / f"{machine.name}.log")], url)


def _kubernetes(machines: list[Machine], folder: Path) -> Servers:
    (machine,) = machines
    write_credentials(machine.address, folder)
    command: list[str | Path] = [
        *(sys.executable, "-m", "tests.cluster.api_server"),
        *(machine.address, "6443", folder),
    ]
    url = f"kubernetes://{machine.address}:6443/fleet?ca={folder}/ca.pem&token-file={folder}/token"
    return Servers([Node(machine, command, folder / f"{machine.name}.log")], url)


def _addresses(machines: Sequence[Machine]) -> str:
    return ",".join(each.address for each in machines)


ENGINES: Final[Mapping[str, Kind]] = {
    "etcd": Kind(3, _etcd, _ETCD),
    "kubernetes": Kind(1, _kubernetes, sys.executable.lstrip("/")),
    "nats": Kind(3, _nats, _NATS),
    "postgres": Kind(1, _postgres, _INITDB),
}
"""By the name that ``--engine`` takes."""
