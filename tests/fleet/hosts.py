"""A fleet: hosts with a daemon each, and the servers of an engine, on machines of one network."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.cluster.servers import own_folder
from tests.fleet.engines import ENGINES, Node
from tests.fleet.machines import Machine, Network
from tests.patience import PATIENCE
from tests.supervised.daemon import Daemon, Tamed, is_there, wait_for

__all__ = ["LEASE", "Fleet", "Host", "can_run"]

HOSTS = 3
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
        self.uptime = os.open("/proc/uptime", os.O_RDONLY)

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
        os.close(self.uptime)

    def act(self):
        now = os.pread(self.uptime, 100, 0).split()[0].decode()
        host = os.environ["HOST"]
        self.file.write(f"{self.lease.token} {host} {os.getpid()} {now}\\n".encode())

application = Application("app", Only(Acts("cron"), scope="cluster"))
"""


class Host:
    """A machine with a daemon of two workers."""

    def __init__(self, machine: Machine, engine: str, folder: Path, variables: Mapping[str, str]) -> None:
        self.machine = machine
        self.tamed = Tamed(folder, before=machine.before)
        self._program = self.tamed.write("app.py", PROGRAM)
        self._engine = engine
        self._variables = {"HOST": machine.name, **variables}
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
    """Three hosts and the servers of an engine; ``actions`` is the file in which every holder writes.

    By ``drift`` percent the clocks of the first host are slow, and those of the last one fast.
    """

    def __init__(self, folder: Path, engine: str, drift: float = 0) -> None:
        self.actions = folder / "actions"
        self.actions.touch()
        self.hosts: list[Host] = []
        self.nodes: list[Node] = []
        self._stack = ExitStack()
        with ExitStack() as stack:
            network = Network()
            stack.callback(network.close)
            kind = ENGINES[engine]
            places = [network.machine(number + 1) for number in range(kind.machines)]
            data = stack.enter_context(own_folder())
            shutil.chown(data, "nobody")
            servers = kind.make(places, data)
            self.nodes = servers.nodes
            variables = {"ACTIONS": str(self.actions)}
            if drift:
                variables["LD_PRELOAD"] = str(_clock(folder))
            for number in range(HOSTS):
                variables["CLOCK_RATE"] = str(1 + (number - 1) * drift / 100)
                own = folder / f"host{number}"
                own.mkdir()
                machine = network.machine(kind.machines + number + 1)
                self.hosts.append(Host(machine, servers.url, own, variables))
            self._stack = stack.pop_all()

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
        self._stack.close()


def _clock(folder: Path) -> Path:
    """Compile what changes the rate of clocks."""
    library, source = folder / "clock.so", Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True, timeout=PATIENCE)
    return library


def can_run(engine: str) -> str:
    """Return why the proof cannot run here; empty if it can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if shutil.which("ip") is None:
        return "there is no ip: iproute2"
    if not ENGINES[engine].is_installed:
        return f"there is no server of {engine}"
    try:
        Network().close()
    except subprocess.CalledProcessError as error:
        return f"root may not make networks here: {error.stderr.decode().strip()}"
    return ""
