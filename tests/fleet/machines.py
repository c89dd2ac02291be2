"""Machines for the proof: network namespaces on one switch, with a daemon or a node of etcd in each."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.patience import PATIENCE
from tests.supervised.daemon import Daemon, Tamed, is_there, wait_for

NODES = 3
LEASE = 4.0  # seconds

# Each action is a line of a file that all share. The order of the lines is that in which a store would have
# seen the actions, so a token that is smaller than one before is what it would refuse.
PROGRAM = """
import asyncio, os, time
from pathlib import Path
from tamed import Application, Only, Service

class Acts(Service):
    async def start(self):
        self.file = open(os.environ["ACTIONS"], "ab", buffering=0)

    async def run(self):
        while True:
            if Path(f"block {os.getpid()}").exists():
                while True:
                    self.act()
                    time.sleep(0.01)
            self.act()
            await asyncio.sleep(0.01)

    async def stop(self):
        self.file.close()

    def act(self):
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        host = os.environ["HOST"]
        self.file.write(f"{self.lease.token} {host} {os.getpid()} {now}\\n".encode())

application = Application("app", Only(Acts("cron"), scope="cluster"))
"""


def ip(*words: str) -> None:
    """Run the command that changes networks."""
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=PATIENCE)


class Network:
    """Namespaces, each with an address, that a switch connects; in names that no other run has."""

    def __init__(self) -> None:
        self._prefix = f"tamed{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._names: list[str] = []
        self._add(self._switch)
        ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self._switch, "link", "set", "switch", "up")

    def _add(self, name: str) -> None:
        ip("netns", "add", name)
        self._names.append(name)
        ip("-n", name, "link", "set", "lo", "up")

    def machine(self, number: int) -> "Machine":
        """Add a machine."""
        name, port = f"{self._prefix}-{number}", f"port{number}"
        self._add(name)
        ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
        ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        return Machine(self._switch, port, name, f"10.77.0.{number}")

    def close(self) -> None:
        """Remove all."""
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=PATIENCE)


class Machine:
    """A namespace with an address; ``before`` are the words that run a command in it."""

    def __init__(self, switch: str, port: str, name: str, address: str) -> None:
        self._switch = switch
        self._port = port
        self.name = name
        self.address = address
        self.before = ("ip", "netns", "exec", name)

    def connect(self, *, is_on: bool = True) -> None:
        """Plug its cable in, or pull it: what is sent is lost."""
        ip("-n", self._switch, "link", "set", self._port, "up" if is_on else "down")

    def mute(self, others: Sequence["Machine"], *, is_on: bool = True) -> None:
        """Let it send nothing to others, while it hears them; or end that."""
        for other in others:
            ip("-n", self.name, "route", "add" if is_on else "del", "blackhole", f"{other.address}/32")


class Node:
    """A node of etcd on a machine."""

    def __init__(self, machine: Machine, number: int, cluster: str, folder: Path) -> None:
        self.machine = machine
        self._number = number
        self._cluster = cluster
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again with its data."""
        own = self.machine.address
        urls = {"client": f"http://{own}:2379", "peer": f"http://{own}:2380"}
        command = [
            *(*self.machine.before, "etcd", "--name", f"node{self._number}"),
            *("--data-dir", str(self._folder / f"node{self._number}"), "--unsafe-no-fsync"),
            *("--listen-client-urls", urls["client"], "--advertise-client-urls", urls["client"]),
            *("--listen-peer-urls", urls["peer"], "--initial-advertise-peer-urls", urls["peer"]),
            *("--initial-cluster", self._cluster),
        ]
        with (self._folder / f"node{self._number}.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; after SIGKILL it is gone when this returns."""
        if self._process is not None:
            self._process.send_signal(number)
            if number is signal.SIGKILL:
                self._process.wait()


class Host:
    """A machine with a daemon of two workers."""

    def __init__(self, machine: Machine, engine: str, folder: Path, actions: Path) -> None:
        self.machine = machine
        self.tamed = Tamed(folder, before=machine.before)
        self._program = self.tamed.write("app.py", PROGRAM)
        self._engine = engine
        self._variables = {"HOST": machine.name, "ACTIONS": str(actions)}
        self.daemon: Daemon | None = None

    def start(self) -> None:
        """Start the daemon, unless it runs."""
        if self.daemon is None or not is_there(self.daemon.pid):
            options = ("--cluster", self._engine, "--cluster-lease", f"{LEASE:g}s", "--workers", "2")
            self.daemon = self.tamed.start(*options, "--name", "app", self._program, env=self._variables)

    def command(self, *words: str) -> bool:
        """Run a command of an operator; return whether it succeeded."""
        return self.tamed(*words, env=self._variables).status == 0

    @property
    def supervisor(self) -> int:
        """The pid of the supervisor."""
        assert self.daemon is not None
        return self.daemon.pid


class Fleet:
    """Three nodes of etcd and three hosts; ``actions`` is the file in which every holder writes."""

    def __init__(self, folder: Path) -> None:
        self.network = Network()
        self.actions = folder / "actions"
        self.actions.touch()
        machines = [self.network.machine(number) for number in range(1, 2 * NODES + 1)]
        cluster = ",".join(f"node{n}=http://{each.address}:2380" for n, each in enumerate(machines[:NODES]))
        self.nodes = [Node(each, number, cluster, folder) for number, each in enumerate(machines[:NODES])]
        engine = f"etcd://{','.join(each.machine.address for each in self.nodes)}"
        self.hosts = []
        for number, machine in enumerate(machines[NODES:]):
            own = folder / f"host{number}"
            own.mkdir()
            self.hosts.append(Host(machine, engine, own, self.actions))

    def start(self) -> None:
        """Start all, and wait for the first action."""
        for node in self.nodes:
            node.start()
        for host in self.hosts:
            host.start()
        wait_for("the first action", lambda: self.actions.stat().st_size)

    def host_of(self, name: str) -> Host:
        """Return the host on the machine of this name."""
        return next(each for each in self.hosts if each.machine.name == name)

    def close(self) -> None:
        """End all that is left."""
        for host in self.hosts:
            host.tamed.close()
        for node in self.nodes:
            node.signal(signal.SIGKILL)
        self.network.close()


def can_run() -> str:
    """Return why the proof cannot run here; empty if it can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    for program in ("ip", "etcd"):
        found = [Path(folder) / program for folder in os.get_exec_path() if (Path(folder) / program).exists()]
        if not found:
            return f"there is no {program}"
    return "" if sys.platform == "linux" else "this is no Linux"
