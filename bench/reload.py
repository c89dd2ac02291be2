"""What clients notice of a reload, side by side: ``python -m bench.reload``.

Each server has two workers. It is reloaded again and again, first under all the load that it can take, and
every connection that fails is counted; then at a steady rate, and the longest time without an answer is
taken. The same without reloads tells what the machine itself is good for. gunicorn and uvicorn speak HTTP,
with a connection for each request. With ``--import-seconds`` the application takes that long to import.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.load import Load, Result
from bench.machine import LOAD_CORE, SERVER_CORE, check
from bench.peers import NGINX, nginx
from bench.process import BIN, HOST, PATIENCE, POEM, Process, command, free_port, programs, tamed

__all__ = ["reloads"]

_RATE = 1000.0
_WORKERS = "2"
_NAME = "bench"  # of our instance: what `tamed reload` goes by
_FIGURES = {
    "failures": Figure("failed", "", 1, 0, exact=True),
    "served": Figure("served", "", 1, 0),
    "gap": Figure("longest gap", "ms", 1e3, 1),
    "quiet": Figure("gap without reloads", "ms", 1e3, 1),
}


class Reloading(ABC):
    """A server that can be reloaded. ``folder`` is for its files."""

    http = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = self.start()

    @abstractmethod
    def start(self) -> Process:
        """Return the server."""

    @abstractmethod
    def reload(self) -> None:
        """Begin a reload; it need not be over when this returns."""

    def close(self) -> None:  # noqa: B027  most have nothing to do
        """End what is not ended with the server itself."""


class _Tamed(Reloading):
    def start(self) -> Process:
        port = free_port()
        environment = {"BENCH_KIND": "reply", "BENCH_PORT": str(port), "TAMED_RUNDIR": str(self.folder)}
        options = ["--name", _NAME, "--workers", _WORKERS, "--log-level", "warning"]
        words = tamed("run", *options, programs / "services.py")
        return Process(words, port, environment=environment)

    def reload(self) -> None:
        words = command("taskset", "-c", SERVER_CORE, *tamed("reload", _NAME))
        environment = {**os.environ, "TAMED_RUNDIR": str(self.folder)}
        subprocess.run(words, check=True, capture_output=True, env=environment)


class _TamedByHup(_Tamed):
    def reload(self) -> None:
        os.kill(self.server.pid, signal.SIGHUP)


class _Nginx(Reloading):
    def start(self) -> Process:
        return nginx(self.folder, workers=int(_WORKERS))

    def reload(self) -> None:
        subprocess.run([*self.server.command, "-s", "reload"], check=True, capture_output=True)


class _Gunicorn(Reloading):
    http = True

    def start(self) -> Process:
        port = free_port()
        options = ["--workers", _WORKERS, "--backlog", "4096", "--pid", self.folder / "pid"]
        words = command(BIN / "gunicorn", *options, "--bind", f"{HOST}:{port}", "web_poetry:wsgi")
        return Process(words, port, folder=programs)

    def reload(self) -> None:
        os.kill(self.server.pid, signal.SIGHUP)


class _GunicornUpgrade(_Gunicorn):
    """Goes by what its documentation says under "Upgrading to a new binary on the fly"."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._masters: list[int] = []

    def reload(self) -> None:
        old = int((self.folder / "pid").read_text())
        fresh_file = self.folder / "pid.2"
        os.kill(old, signal.SIGUSR2)
        _wait("a new master", fresh_file.exists)
        fresh = int(fresh_file.read_text())
        self._masters.append(fresh)
        _wait("its workers", lambda: len(_children(fresh)) >= int(_WORKERS))
        os.kill(old, signal.SIGTERM)
        _wait("its promotion", lambda: not fresh_file.exists())

    def close(self) -> None:
        for pid in self._masters:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGTERM)
                _wait("the end of gunicorn", lambda pid=pid: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]


class _Uvicorn(Reloading):
    http = True

    def start(self) -> Process:
        port = free_port()
        options = ["--workers", _WORKERS, "--backlog", "4096", "--no-access-log"]
        words = command(BIN / "uvicorn", "--host", HOST, "--port", port, *options, "web_poetry:asgi")
        return Process(words, port, folder=programs)

    def reload(self) -> None:
        os.kill(self.server.pid, signal.SIGHUP)


def _children(pid: int) -> Sequence[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _wait(what: str, is_there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_there():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited in vain for {what}")
        time.sleep(0.01)


def measure(kind: type[Reloading], times: int, every: float) -> Figures:
    """Reload a server so many times, every so many seconds; tell what its clients noticed."""
    with tempfile.TemporaryDirectory() as folder:
        reloading = kind(Path(folder))
        with reloading.server:
            try:
                full = _under(reloading, times, every, rate=0)
                steady = _under(reloading, times, every, rate=_RATE)
                quiet = _under(reloading, 0, every, rate=_RATE)
            finally:
                reloading.close()
    failures = full.failures + steady.failures
    return {"failures": failures, "served": full.ok + steady.ok, "gap": steady.gap, "quiet": quiet.gap}


def _under(reloading: Reloading, times: int, every: float, rate: float) -> Result:
    port, http = reloading.server.port, reloading.http
    assert port is not None
    send = "GET / HTTP/1.0\r\n\r\n" if http else ""
    load = Load((HOST, port), [POEM], rate=rate, at_once=64, send=send, http=http, cpu=LOAD_CORE)
    with load.start() as running:
        time.sleep(every / 2)
        for _ in range(times):
            begin = time.monotonic()
            reloading.reload()
            time.sleep(max(0.0, begin + every - time.monotonic()))
        time.sleep(every / 2)
    return running.result


def reloads(times: int = 2, every: float = 1.0) -> Comparison:
    """Return the comparison, with so many reloads, every so many seconds."""

    def contestant(name: str, kind: type[Reloading], missing: str = "") -> Contestant:
        return Contestant(name, partial(measure, kind, times, every), missing)

    what = "reload under load"
    return Comparison(
        "reload",
        f"{times} reloads under load, every {every:g} s, two workers",
        _FIGURES,
        [
            contestant("tamed reload", _Tamed, _MISSING),
            contestant("tamed, HUP", _TamedByHup, _MISSING),
            contestant("nginx -s reload", _Nginx, NGINX),
            contestant("gunicorn, HUP", _Gunicorn),
            contestant("gunicorn, USR2", _GunicornUpgrade),
            contestant("uvicorn, HUP", _Uvicorn),
        ],
        [
            Goal(f"{what}: failed", "failures", "tamed reload", None, 0),
            Goal(f"{what}: longest gap in s", "gap", "tamed reload", None, 0.005),
            Goal(f"{what}: longest gap", "gap", "tamed reload", "nginx -s reload", 1.0),
        ],
        at_most=3,
    )


def _has_reload() -> bool:
    return subprocess.run(tamed("reload", "--help"), capture_output=True, check=False).returncode == 0


_MISSING = "" if _has_reload() else "`tamed reload`"


def main() -> None:
    """Compare them once, and print a table."""
    from bench.run import run
    from bench.table import section

    check()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reloads", type=int, default=5, help="how many")
    parser.add_argument("--every", type=float, default=2.0, help="seconds from one to the next")
    parser.add_argument(
        "--import-seconds", type=float, default=0.0, help="how long the application's import takes"
    )
    arguments = parser.parse_args()
    os.environ["BENCH_IMPORT_SECONDS"] = str(arguments.import_seconds)
    print(section(run(reloads(arguments.reloads, arguments.every), 1)))


if __name__ == "__main__":
    main()
