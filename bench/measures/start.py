"""From exec to the first poem."""

import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.machine import LOAD_CORE, SERVER_CORE, on_core
from bench.peers import NGINX, aiomisc, loops, minimal, nginx, tamed_poetry, twistd
from bench.process import BIN, HOST, PATIENCE, POEM, Process, command, free_port, programs, tamed

__all__ = ["start", "start_daemon"]

_TIMES = 3  # in each run, because one takes so little
_FIGURES = {"time": Figure("exec to first poem", "ms", 1e3, 0)}


def read_poem(port: int) -> bytes:
    """Read a poem; nothing where nobody listens yet."""
    with socket.socket() as sock:
        if sock.connect_ex((HOST, port)) != 0:
            return b""
        return sock.makefile("rb").read()


def wait_for_poem(port: int) -> None:
    """Try until there is a whole poem."""
    poem, deadline = POEM.read_bytes(), time.monotonic() + PATIENCE
    while read_poem(port) != poem:
        if time.monotonic() > deadline:
            raise RuntimeError(f"there is no poem at port {port}")
        time.sleep(0.0003)


def _foreground(make: Callable[[Path], Process]) -> float:
    with tempfile.TemporaryDirectory() as folder, on_core(LOAD_CORE):
        server = make(Path(folder))
        port, server.port = server.port, None  # it is ready for us at its first poem
        assert port is not None
        begin = time.perf_counter()
        with server:
            wait_for_poem(port)
            return time.perf_counter() - begin


def _median(measure: Callable[[], float]) -> Figures:
    return {"time": statistics.median(measure() for _ in range(_TIMES))}


def start() -> Comparison:
    """Return the comparison in the foreground."""

    def contestant(name: str, make: Callable[[Path], Process], missing: str = "") -> Contestant:
        return Contestant(name, partial(_median, partial(_foreground, make)), missing)

    return Comparison(
        "start",
        "From exec to the first poem, in the foreground",
        _FIGURES,
        [
            contestant("tamed", lambda _: tamed_poetry()),
            contestant("tamed on asyncio", lambda _: tamed_poetry("--loop", "asyncio")),
            contestant("twistd", partial(twistd, "poem-log", log="-")),
            contestant("asyncio script", lambda _: loops("protocol", "asyncio")),
            contestant("uvloop script", lambda _: loops("protocol", "uvloop")),
            contestant("aiomisc", lambda _: aiomisc()),
            contestant("nginx", nginx, NGINX),
            contestant("C, minimal", lambda _: minimal()),
        ],
        [Goal("exec to first poem, foreground", "time", "tamed", "twistd", 0.45)],
    )


def _pinned(cores: str, words: Sequence[str], environment: dict[str, str]) -> None:
    pinned = command("taskset", "-c", cores, *words)
    subprocess.run(pinned, check=True, capture_output=True, env={**os.environ, **environment})


def _tamed_daemon(cores: str) -> float:
    with tempfile.TemporaryDirectory() as folder, on_core(LOAD_CORE):
        port, environment = free_port(), {"TAMED_RUNDIR": folder, "LOGS_DIRECTORY": folder}
        begin = time.perf_counter()
        _pinned(cores, tamed("start", "fastpoetry", "--port", port), environment)
        seconds = time.perf_counter() - begin
        poem = read_poem(port)
        _pinned(cores, tamed("stop", "fastpoetry"), environment)
        if poem != POEM.read_bytes():
            raise RuntimeError("`tamed start` returned before there was a poem")
        return seconds


def _twistd_daemon(cores: str) -> float:
    with tempfile.TemporaryDirectory() as folder, on_core(LOAD_CORE):
        port, pid_file = free_port(), Path(folder) / "pid"
        environment = {"BENCH_KIND": "poem-log", "BENCH_PORT": str(port), "BENCH_POEM": str(POEM)}
        files = [f"--pidfile={pid_file}", f"--logfile={folder}/log"]
        words = command(BIN / "twistd", *files, "-y", programs / "fastpoetry.tac")
        begin = time.perf_counter()
        _pinned(cores, words, environment)
        wait_for_poem(port)
        seconds = time.perf_counter() - begin
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.005)
        return seconds


def start_daemon() -> Sequence[Comparison]:
    """Return the comparisons as daemons: on two cores, and all of it on one."""
    return [
        _daemons("start-daemon", "on two cores", f"{SERVER_CORE},{LOAD_CORE}", 0.75),
        _daemons("start-daemon-one-core", "on one core", str(SERVER_CORE), 1.0),
    ]


def _daemons(key: str, where: str, cores: str, limit: float) -> Comparison:
    return Comparison(
        key,
        f"A daemon {where}: from exec until its port is ready",
        {"time": Figure("until ready", "ms", 1e3, 0)},
        [
            Contestant("tamed", partial(_median, partial(_tamed_daemon, cores))),
            Contestant("twistd", partial(_median, partial(_twistd_daemon, cores))),
        ],
        [Goal(f"`tamed start` until it returns, port ready, {where}", "time", "tamed", "twistd", limit)],
        note="tamed has a supervisor and a worker, and has returned; of twistd it is the port that counts.",
    )
