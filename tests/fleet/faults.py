"""Faults of a fleet, and what its operators do. Each undoes itself, as far as the daemons do not."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

from tests.fleet.hosts import LEASE, Fleet
from tests.fleet.referee import Action

__all__ = ["FAULTS", "Fault"]

Fault = Callable[[Fleet, Action, Random], None]
_LONG = 1.5 * LEASE  # longer than anybody may hold on


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_holder(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGKILL of the holder."""
    _signal(last.pid, signal.SIGKILL)


def stop_holder(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGSTOP of the holder."""
    _signal(last.pid, signal.SIGSTOP)


def block_holder(fleet: Fleet, last: Action, random: Random) -> None:
    """A blocked event loop, which goes on acting."""
    (fleet.host_of(last.host).tamed.folder / f"block {last.pid}").touch()


def kill_supervisor(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGKILL of the holder's supervisor."""
    _signal(fleet.host_of(last.host).supervisor, signal.SIGKILL)


def kill_supervisor_of_blocked(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGKILL of the supervisor of a blocked holder."""
    block_holder(fleet, last, random)
    kill_supervisor(fleet, last, random)


def stop_supervisor(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGSTOP of the holder's supervisor."""
    pid = fleet.host_of(last.host).supervisor
    _signal(pid, signal.SIGSTOP)
    time.sleep(random.uniform(0.1, _LONG))
    _signal(pid, signal.SIGCONT)


def stop_both(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGSTOP of holder and supervisor, and SIGCONT of both."""
    pids = (fleet.host_of(last.host).supervisor, last.pid)
    for pid in pids:
        _signal(pid, signal.SIGSTOP)
    time.sleep(random.uniform(0.1, _LONG))
    for pid in reversed(pids):
        _signal(pid, signal.SIGCONT)


def suspend_host(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGSTOP of the holder's whole machine, for longer than the lease."""
    machine = fleet.host_of(last.host).machine
    machine.signal(signal.SIGSTOP)
    time.sleep(random.uniform(LEASE, _LONG))
    machine.signal(signal.SIGCONT)


def cut_off_holder(fleet: Fleet, last: Action, random: Random) -> None:
    """Partition of the holder."""
    machine = fleet.host_of(last.host).machine
    machine.connect(is_on=False)
    time.sleep(random.uniform(0.5, _LONG))
    machine.connect()


def mute_holder(fleet: Fleet, last: Action, random: Random) -> None:
    """One-way partition: the holder cannot send."""
    machine = fleet.host_of(last.host).machine
    machine.mute([node.machine for node in fleet.nodes])
    time.sleep(random.uniform(0.5, _LONG))
    machine.mute([node.machine for node in fleet.nodes], is_on=False)


def mute_nodes(fleet: Fleet, last: Action, random: Random) -> None:
    """One-way partition: the engine cannot answer the holder."""
    holder = fleet.host_of(last.host).machine
    for node in fleet.nodes:
        node.machine.mute([holder])
    time.sleep(random.uniform(0.5, _LONG))
    for node in fleet.nodes:
        node.machine.mute([holder], is_on=False)


def kill_node(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGKILL of a server."""
    node = random.choice(fleet.nodes)
    node.signal(signal.SIGKILL)
    time.sleep(random.uniform(0.1, _LONG))
    node.start()


def stop_node(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGSTOP of a server."""
    node = random.choice(fleet.nodes)
    node.signal(signal.SIGSTOP)
    time.sleep(random.uniform(0.5, _LONG))
    node.signal(signal.SIGCONT)


def cut_off_node(fleet: Fleet, last: Action, random: Random) -> None:
    """Partition of a server."""
    machine = random.choice(fleet.nodes).machine
    machine.connect(is_on=False)
    time.sleep(random.uniform(0.5, _LONG))
    machine.connect()


def stop_majority(fleet: Fleet, last: Action, random: Random) -> None:
    """SIGSTOP of a majority of the servers."""
    nodes = random.sample(fleet.nodes, len(fleet.nodes) // 2 + 1)
    for node in nodes:
        node.signal(signal.SIGSTOP)
    time.sleep(random.uniform(0.5, _LONG))
    for node in nodes:
        node.signal(signal.SIGCONT)


def reload(fleet: Fleet, last: Action, random: Random) -> None:
    """A reload of the holder's daemon."""
    fleet.host_of(last.host).command("reload", "app")


def upgrade(fleet: Fleet, last: Action, random: Random) -> None:
    """An upgrade of the holder's daemon."""
    fleet.host_of(last.host).command("upgrade", "app")


def resign(fleet: Fleet, last: Action, random: Random) -> None:
    """A resignation."""
    fleet.host_of(last.host).command("resign", "app", "cron")


def stop_daemon(fleet: Fleet, last: Action, random: Random) -> None:
    """A stop of the holder's daemon."""
    fleet.host_of(last.host).command("stop", "app")


FAULTS: list[Fault] = [
    kill_holder,
    stop_holder,
    block_holder,
    kill_supervisor,
    kill_supervisor_of_blocked,
    stop_supervisor,
    stop_both,
    suspend_host,
    cut_off_holder,
    mute_holder,
    mute_nodes,
    kill_node,
    stop_node,
    cut_off_node,
    stop_majority,
    reload,
    upgrade,
    resign,
    stop_daemon,
]
"""All of them. The docstring is the name in the table."""
