"""Machines for the proof: network namespaces on one switch."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from tests.patience import PATIENCE

__all__ = ["Machine", "Network"]


def ip(*words: str) -> None:
    """Run the command that changes networks."""
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=PATIENCE)


class Network:
    """Namespaces, each with an address, that a switch connects; in names that no other run has."""

    def __init__(self) -> None:
        self._prefix = f"tamed{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._names: list[str] = []
        try:
            self._add(self._switch)
            ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
            ip("-n", self._switch, "link", "set", "switch", "up")
        except subprocess.CalledProcessError:
            self.close()
            raise

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

    def pids(self) -> list[int]:
        """Return the pids of all processes on it, the oldest first."""
        done = subprocess.run(
            ["ip", "netns", "pids", self.name], check=True, capture_output=True, timeout=PATIENCE
        )
        return sorted(map(int, done.stdout.split()))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes on it, also to those that come meanwhile."""
        seen: set[int] = set()
        while new := set(self.pids()) - seen:
            for pid in sorted(new):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            seen |= new

    def mute(self, others: Sequence["Machine"], *, is_on: bool = True) -> None:
        """Let it send nothing to others, while it hears them; or end that."""
        for other in others:
            ip("-n", self.name, "route", "add" if is_on else "del", "blackhole", f"{other.address}/32")
