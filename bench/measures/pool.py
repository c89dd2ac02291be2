"""What workers cost beside the first: how soon a lost one is replaced, and how soon all are by a reload."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.measures.memory import memory_of
from bench.peers import tamed_poetry
from bench.process import BIN, HOST, PATIENCE, Process, command, free_port, programs, tamed
from tamed.control.instances import find_instance, status_of_instance
from tamed.unix.rundir import RunDirectory

__all__ = ["further_workers", "pool_reload", "replacement"]

_NAME = "bench"
_LOOK = 0.002  # seconds
_FORMER_RELOAD = 1.387  # seconds, when each worker was an interpreter of its own that loaded everything


def _wait(what: str, is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_there():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited in vain for {what}")
        time.sleep(_LOOK)


def _tamed(folder: Path, workers: int) -> Process:
    return tamed_poetry("--name", _NAME, "--rundir", str(folder), "--workers", str(workers))


def _ready(folder: Path) -> list[int]:
    """Return the pids of the workers that are ready."""
    status = status_of_instance(find_instance(RunDirectory(folder), _NAME), PATIENCE)
    return [each["pid"] for each in status["workers"] if each["state"] == "ready"]


def _replace() -> Figures:
    with tempfile.TemporaryDirectory() as name, _tamed(folder := Path(name), 2):
        _wait("the workers", lambda: len(_ready(folder)) == 2)
        victim = _ready(folder)[0]
        begin = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        _wait("another worker", lambda: len(found := _ready(folder)) == 2 and victim not in found)
        return {"time": time.perf_counter() - begin}


def replacement() -> Comparison:
    """Return the comparison of the replacement of a worker."""
    return Comparison(
        "replacement",
        "`kill -9` of one of two workers, until another is ready",
        {"time": Figure("until ready", "ms", 1e3, 0)},
        [Contestant("tamed", _replace)],
        [Goal("replacement of a killed worker", "time", "tamed", None, 0.06)],
    )


def _reload_tamed() -> Figures:
    with tempfile.TemporaryDirectory() as name, _tamed(folder := Path(name), 4):
        _wait("the workers", lambda: len(_ready(folder)) == 4)
        begin = time.perf_counter()
        words = tamed("reload", "--rundir", folder, _NAME)
        subprocess.run(words, check=True, capture_output=True)
        return {"time": time.perf_counter() - begin}


def _reload_gunicorn() -> Figures:
    with tempfile.TemporaryDirectory() as name:
        port, pid_file = free_port(), Path(name) / "pid"
        options = ["--workers", 4, "--pid", pid_file, "--bind", f"{HOST}:{port}"]
        words = command(BIN / "gunicorn", *options, "web_poetry:wsgi")
        with Process(words, port, folder=programs) as server:
            workers = Path(f"/proc/{server.pid}/task/{server.pid}/children")
            _wait("the workers", lambda: len(workers.read_text().split()) == 4)
            old = set(workers.read_text().split())
            begin = time.perf_counter()
            os.kill(server.pid, signal.SIGHUP)
            _wait("the end of the old workers", lambda: not old & set(workers.read_text().split()))
            return {"time": time.perf_counter() - begin}


def pool_reload() -> Comparison:
    """Return the comparison of a reload of four workers."""
    missing = "" if (BIN / "gunicorn").exists() else "gunicorn"
    return Comparison(
        "reload-four",
        "A reload of four workers, until the command returns, or the old workers are gone",
        {"time": Figure("time", "ms", 1e3, 0)},
        [Contestant("tamed", _reload_tamed), Contestant("gunicorn", _reload_gunicorn, missing)],
        [
            Goal("reload of four workers, in s", "time", "tamed", None, 0.3 * _FORMER_RELOAD),
            Goal("reload of four workers", "time", "tamed", "gunicorn", 1.0),
        ],
    )


def _each_further() -> Figures:
    one, four = (memory_of(partial(_start, count))["memory"] for count in (2, 6))
    return {"memory": (four - one) / 4}


def _start(count: int, folder: Path) -> Process:
    return _tamed(folder, count)


def further_workers() -> Comparison:
    """Return the memory of each worker beyond the second."""
    return Comparison(
        "further-workers",
        "Memory of each further worker",
        {"memory": Figure("proportional memory (PSS)", "MB", 1e-6, 1, exact=True)},
        [Contestant("tamed", _each_further)],
        [Goal("each further worker, PSS", "memory", "tamed", None, 5.5 * 2**20)],
        note="four more workers than two, divided by four.",
    )
