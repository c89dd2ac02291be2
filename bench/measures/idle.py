"""What connections cost that nobody uses, and how quickly a server gets rid of them."""

import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.load import Load
from bench.machine import LOAD_CORE
from bench.peers import loops, tamed_application
from bench.process import HOST, Process

__all__ = ["idle", "idle_connections"]

_COUNT = 10_000

_FIGURES = {
    "memory": Figure("memory of the process", "MB", 1e-6, 1, exact=True),
    "each": Figure("each connection", "KB", 1e-3, 2, exact=True),
    "exit": Figure("SIGTERM to exit", "ms", 1e3, 0),
}


def idle_connections(start: Callable[[], Process], count: int = _COUNT) -> Figures:
    """Open connections and leave them alone; tell the memory, and the time to exit with all of them open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the server, which inherits it
    with start() as server:
        assert server.port is not None
        before = server.memory()
        load = Load((HOST, server.port), connections=count, at_once=count, timeout=3600, cpu=LOAD_CORE)
        with load.start():
            _wait_for(server, count)
            memory = server.memory()
            seconds = server.stop()
    return {"memory": memory, "each": (memory - before) / count, "exit": seconds}


def _wait_for(server: Process, count: int) -> None:
    """Wait until the server has so many descriptors."""
    deadline = time.monotonic() + 30
    while sum(1 for _ in Path(f"/proc/{server.pid}/fd").iterdir()) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{server.command} did not accept {count} connections")
        time.sleep(0.02)


def idle() -> Comparison:
    """Return the comparison with 10,000 connections."""
    what = "10,000 idle connections"
    return Comparison(
        "idle",
        f"{what} of a protocol, uvloop",
        _FIGURES,
        [
            Contestant("tamed", partial(idle_connections, partial(tamed_application, "idle"))),
            Contestant("bare loop", partial(idle_connections, partial(loops, "idle", "uvloop"))),
        ],
        [
            Goal(f"{what}: memory", "memory", "tamed", "bare loop", 1.05),
            Goal(f"{what}: SIGTERM to exit", "exit", "tamed", "bare loop", 1.2),
        ],
        note="both close the connections, one by one, before they exit.",
    )
