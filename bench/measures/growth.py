"""How the cost grows: the same of ours at several sizes. Nothing may grow worse than linearly."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures
from bench.measures.idle import idle_connections
from bench.measures.memory import memory_of
from bench.measures.trees import tree
from bench.peers import tamed_application, tamed_poetry
from bench.process import Process, tamed

__all__ = ["growth"]

_MEMORY = {"memory": Figure("proportional memory (PSS)", "MB", 1e-6, 1, exact=True)}


def growth() -> Sequence[Comparison]:
    """Return the comparisons of ours with itself at other sizes, which are measured once."""
    parts = (_services(), _connections(), _workers(), _plugins())
    return [replace(part, at_most=1) for part in parts]


def _services() -> Comparison:
    return Comparison(
        "grow-services",
        "Services in a tree: CPU for each",
        {"all": Figure("build, start and stop", "us", 1e6, 2)},
        [
            Contestant(f"tamed, {n:,}", partial(tree, "tamed", n, "hooks"))
            for n in (100, 1000, 10_000, 100_000)
        ],
    )


def _connections() -> Comparison:
    start = partial(tamed_application, "idle")
    return Comparison(
        "grow-connections",
        "Open connections that nobody uses",
        {
            "each": Figure("memory for each", "KB", 1e-3, 2, exact=True),
            "exit": Figure("SIGTERM to exit", "ms", 1e3, 0),
        },
        [Contestant(f"tamed, {n:,}", partial(idle_connections, start, n)) for n in (1000, 5000, 19_000)],
        note="a process may open 20,000 files on many systems, so 19,000 stands for 20,000.",
    )


def _workers() -> Comparison:
    def start(count: int, folder: Path) -> Process:
        return tamed_poetry("--rundir", str(folder), "--workers", str(count))

    return Comparison(
        "grow-workers",
        "A supervisor and its workers",
        _MEMORY,
        [Contestant(f"tamed, {n}", partial(memory_of, partial(start, n))) for n in (1, 2, 4, 8)],
    )


def _plugins() -> Comparison:
    return Comparison(
        "grow-plugins",
        "`tamed run fastpoetry --help`, with other distributions installed that have a plugin each",
        {"time": Figure("time", "ms", 1e3, 0)},
        [Contestant(f"tamed, {n}", partial(_with_distributions, n)) for n in (0, 100, 500)],
    )


def _with_distributions(count: int) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            _install(Path(folder), f"verse{number}")
        environment = {**os.environ, "PYTHONPATH": folder}
        begin = time.perf_counter()
        subprocess.run(tamed("run", "fastpoetry", "--help"), check=True, capture_output=True, env=environment)
        return {"time": time.perf_counter() - begin}


def _install(folder: Path, name: str) -> None:
    """Do what an installer does for a package with one plugin."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[tamed.plugins]\n{name} = {name}:{name}\n")
