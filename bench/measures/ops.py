"""What metrics cost: an increment, a scrape, and a daemon that has them and one that has not."""

import os
import subprocess
import tempfile
import time
import urllib.request
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.machine import LOAD_CORE, SERVER_CORE
from bench.process import HOST, PATIENCE, PYTHON, Process, command, free_port, programs, tamed

__all__ = ["increment", "operations", "scrape"]

_PROGRAM = programs / "metrics.py"
_WORKERS = 8
_SCRAPES = 100
_SERIES = 500


def _increment(kind: str) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        more = {"PROMETHEUS_MULTIPROC_DIR": folder} if kind == "files" else {}
        words = command("taskset", "-c", SERVER_CORE, PYTHON, _PROGRAM, kind)
        done = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, **more})
    return {"time": float(done.stdout) / 1e9}


def increment() -> Comparison:
    """Return the comparison of a counter's increment."""
    return Comparison(
        "increment",
        "An increment of a counter of `prometheus_client`",
        {"time": Figure("CPU", "ns", 1e9, 0)},
        [
            Contestant("tamed's values, in shared memory", partial(_increment, "tamed")),
            Contestant("its own, one process", partial(_increment, "one")),
            Contestant("its own, multiprocess mode", partial(_increment, "files")),
        ],
        [
            Goal(
                "an increment of a counter",
                "time",
                "tamed's values, in shared memory",
                "its own, one process",
                1.5,
            )
        ],
    )


class _Daemon(Process):
    """A supervisor with workers that have metrics."""

    def __init__(self, folder: Path, workers: int, *options: str) -> None:
        port = free_port()
        words = tamed("run", "--rundir", folder / "run", "--workers", str(workers), *options, _PROGRAM)
        environment = {"BENCH_PORT": str(port), "LOGS_DIRECTORY": str(folder)}
        super().__init__(words, port, environment=environment, cores=(SERVER_CORE, LOAD_CORE))


def _scrape() -> Figures:
    """Scrape again and again; tell the time, and the CPU of all processes beyond what they use anyway."""
    with tempfile.TemporaryDirectory() as name:
        where = f"{HOST}:{free_port()}"
        with _Daemon(Path(name), _WORKERS, "--ops", where) as daemon:
            _wait_for_series(where)
            before = daemon.cpu()
            begin = time.monotonic()
            time.sleep(2.0)
            idle = (daemon.cpu() - before) / (time.monotonic() - begin)
            begin, before, seconds = time.monotonic(), daemon.cpu(), []
            for _ in range(_SCRAPES):
                started = time.perf_counter()
                _read(where)
                seconds.append(time.perf_counter() - started)
            used = daemon.cpu() - before - idle * (time.monotonic() - begin)
    return {"time": sorted(seconds)[len(seconds) // 2], "cpu": used / _SCRAPES}


def _read(where: str) -> str:
    with urllib.request.urlopen(f"http://{where}/metrics", timeout=PATIENCE) as answer:
        return str(answer.read(), "utf-8")


def _wait_for_series(where: str) -> None:
    """Wait until all workers have counted."""
    deadline = time.monotonic() + PATIENCE
    while f"served_{_SERIES - 1}_total {float(_WORKERS)}\n" not in (text := _read(where)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not all workers count: {text[-500:]}")


def scrape() -> Comparison:
    """Return how long a scrape takes."""
    what = f"a scrape of {_SERIES} series and {_WORKERS} workers"
    return Comparison(
        "scrape",
        f"{what[0].upper()}{what[1:]}",
        {
            "time": Figure("time", "ms", 1e3, 1),
            "cpu": Figure("CPU, all processes", "ms", 1e3, 1),
        },
        [Contestant("tamed", _scrape)],
        [
            Goal(f"{what}: seconds", "time", "tamed", None, 0.020),
            Goal(f"{what}, at one a second: share of a CPU", "cpu", "tamed", None, 0.01),
        ],
    )


def _memory(*options: str) -> Figures:
    with tempfile.TemporaryDirectory() as name, _Daemon(Path(name), 1, *options) as daemon:
        time.sleep(5.0)  # a template of one worker ends when that serves
        return {"memory": daemon.memory()}


def operations() -> Comparison:
    """Return what a daemon takes with the operations endpoint, and without."""
    return Comparison(
        "ops",
        "A daemon of one idle worker, with `--ops` and without",
        {
            "memory": Figure("proportional memory", "MB", 1e-6, 1, exact=True),
        },
        [
            Contestant("without", _memory),
            Contestant("with `--ops`", partial(_memory, "--ops", f"{HOST}:0")),
        ],
    )
