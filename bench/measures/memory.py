"""How much memory a server takes once it has served."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.load import Load
from bench.machine import LOAD_CORE
from bench.peers import NGINX, aiomisc, loops, nginx, tamed_poetry, twistd
from bench.process import HOST, POEM, Process

__all__ = ["memory", "memory_of"]

_FIGURES = {"memory": Figure("proportional memory (PSS)", "MB", 1e-6, 1, exact=True)}


def memory_of(start: Callable[[Path], Process]) -> Figures:
    """Serve a thousand poems; tell the memory of the server and all its processes."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as server:
        assert server.port is not None
        Load((HOST, server.port), [POEM], 1000, cpu=LOAD_CORE).run()
        return {"memory": server.memory()}


def _contestant(name: str, start: Callable[[Path], Process], missing: str = "") -> Contestant:
    return Contestant(name, partial(memory_of, start), missing)


def _supervised(workers: int, folder: Path) -> Process:
    return tamed_poetry("--rundir", str(folder), "--workers", str(workers))


def memory() -> Comparison:
    """Return the comparison."""
    return Comparison(
        "memory",
        "Proportional memory after a thousand poems",
        _FIGURES,
        [
            _contestant("tamed", lambda _: tamed_poetry()),
            _contestant("tamed on asyncio", lambda _: tamed_poetry("--loop", "asyncio")),
            _contestant("tamed, supervisor and worker", partial(_supervised, 1)),
            _contestant("tamed, supervisor and 4 workers", partial(_supervised, 4)),
            _contestant("twistd", partial(twistd, "poem-log", log="-")),
            _contestant("asyncio script", lambda _: loops("protocol", "asyncio")),
            _contestant("uvloop script", lambda _: loops("protocol", "uvloop")),
            _contestant("aiomisc", lambda _: aiomisc()),
            _contestant("nginx", nginx, NGINX),
        ],
        [
            Goal("proportional memory, one process", "memory", "tamed", "twistd", 0.7),
            Goal(
                "proportional memory, supervisor and worker",
                "memory",
                "tamed, supervisor and worker",
                "twistd",
                1.0,
            ),
        ],
    )
