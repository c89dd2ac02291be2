"""A server in a process of its own, pinned to a core: when it is ready, and what it costs."""

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.machine import SERVER_CORE

__all__ = ["BIN", "HOST", "POEM", "PYTHON", "Process", "command", "free_port", "is_open", "programs", "tamed"]

HOST = "127.0.0.1"
POEM = Path(__file__).parents[1] / "src/tamed/builtin/poetry/ecstasy.txt"
PYTHON = sys.executable
BIN = Path(sys.executable).parent
PATIENCE = 30.0  # seconds that a process has to get ready, and to end

programs = Path(__file__).parent / "programs"

# Below the ports that the kernel gives to clients (ip(7), ip_local_port_range), or one of them could have it.
_ports = itertools.cycle(range(20_000 + os.getpid() % 5_000, 32_000))


def command(*words: object) -> list[str]:
    """Return a command line of these words."""
    return [str(word) for word in words]


def tamed(*words: object) -> list[str]:
    """Return a command line of ours."""
    return command(BIN / "tamed", *words)


def free_port() -> int:
    """Return a port that nobody has, and that was not returned just before."""
    for port in _ports:
        with socket.socket() as sock:
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("the ports never end")


def is_open(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with socket.socket() as sock:
        return sock.connect_ex((HOST, port)) == 0


class Process:
    """A server that runs while its ``with`` block does, with whatever processes it starts.

    It is ready, and the block begins, when ``port`` is open; without a port, at once. ``cores`` are where it
    may run.
    """

    def __init__(
        self,
        words: Sequence[str],
        port: int | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        cores: Sequence[int] = (SERVER_CORE,),
        folder: Path | None = None,
    ) -> None:
        self.words = words
        self.command = ["taskset", "-c", ",".join(map(str, cores)), *words]
        self.port = port
        self.environment = {**os.environ, "BENCH_POEM": str(POEM), **(environment or {})}
        self.folder = folder

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self.process.pid
        deadline = time.monotonic() + PATIENCE
        while self.port is not None and not is_open(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{' '.join(self.command)} did not open port {self.port}")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def tree(self) -> list[int]:
        """The pids of the process and all that came of it."""
        return [self.pid, *_descendants(self.pid)]

    def cpu(self) -> float:
        """Return the seconds of CPU that the tree has used, to the nanosecond, as the scheduler counts."""
        return sum(_cpu(pid) for pid in self.tree)

    def memory(self) -> int:
        """Return the bytes of memory that the tree takes, its share of what is shared (PSS, proc(5))."""
        return sum(_memory(pid) for pid in self.tree)

    def stop(self) -> float:
        """End it, and return how many seconds that took."""
        begin = time.perf_counter()
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return time.perf_counter() - begin


def _descendants(ancestor: int) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, rest = stat.read_text().partition(" ")
        except OSError:
            continue
        children.setdefault(int(rest.rpartition(")")[2].split()[1]), []).append(int(pid))
    waiting = [ancestor]
    while waiting:
        found = children.get(waiting.pop(), [])
        yield from found
        waiting += found


def _cpu(pid: int) -> float:
    nanoseconds = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            nanoseconds += int(thread.read_text().split()[0])
        except OSError:
            continue
    return nanoseconds / 1e9


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
