"""twistd beside Tamed on the same unchanged application: ``python -m bench.twisted_bridge``.

Connections a second, CPU for each of them, the time to the first poem and memory. Every contestant is
measured in turn, over and over, and what counts are the ratios of each round.
"""

import argparse
import tempfile
import time
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures
from bench.load import Load
from bench.machine import LOAD_CORE, check, machine, on_core
from bench.measures.start import wait_for_poem
from bench.process import BIN, HOST, POEM, Process, command, free_port, programs, tamed
from bench.run import run
from bench.table import section

__all__ = ["twisted_bridge"]

_CONNECTIONS = 10_000
_FIGURES = {
    "rate": Figure("connections a second", "", 1, 0),
    "cpu": Figure("CPU for each", "µs", 1e6, 1),
    "start": Figure("exec to first poem", "ms", 1e3, 0),
    "memory": Figure("proportional memory (PSS)", "MB", 1e-6, 1, exact=True),
}
_APPLICATION = programs / "fastpoetry.tac"


def _twistd(folder: Path, *options: str) -> list[str]:
    # A real file: both rotate their log by renaming it, and root may rename /dev/null.
    files = [f"--pidfile={folder}/twistd.pid", f"--logfile={folder}/twistd.log"]
    return command(BIN / "twistd", "--nodaemon", *files, *options, "-y", _APPLICATION)


def _tamed(folder: Path, *options: str) -> list[str]:
    return tamed("run", "--log-file", folder / "tamed.log", "--rundir", folder, *options, _APPLICATION)


def _measure(words: list[str], port: int) -> Figures:
    """Start it, take the time to its first poem, and put it under load."""
    environment = {"BENCH_KIND": "poem-log", "BENCH_PORT": str(port), "BENCH_BACKLOG": "4096"}
    with on_core(LOAD_CORE):
        server = Process(words, environment=environment)
        begin = time.perf_counter()
        with server:
            wait_for_poem(port)
            start = time.perf_counter() - begin
            before = server.cpu()
            result = Load((HOST, port), [POEM], _CONNECTIONS, cpu=LOAD_CORE).run()
            if result.failures:
                raise RuntimeError(f"{result.failures} connections failed")
            cpu = (server.cpu() - before) / _CONNECTIONS
            return {"rate": result.rate, "cpu": cpu, "start": start, "memory": server.memory()}


def _contestant(name: str, *options: str) -> Contestant:
    words = _twistd if name.startswith("twistd") else _tamed

    def measure() -> Figures:
        with tempfile.TemporaryDirectory() as folder:
            return _measure(words(Path(folder), *options), free_port())

    return Contestant(name, measure)


def twisted_bridge() -> Comparison:
    """Return the comparison."""
    return Comparison(
        "twisted-bridge",
        "Twisted's poetry service, a log line for each connection, under twistd and under Tamed",
        _FIGURES,
        [
            _contestant("tamed"),
            _contestant("tamed on asyncio", "--loop", "asyncio"),
            _contestant("twistd"),
            _contestant("twistd on asyncio", "--reactor", "asyncio"),
        ],
    )


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7, help="how often each is measured")
    arguments = parser.parse_args()
    check()
    print(machine())
    print(section(run(twisted_bridge(), arguments.runs)))


if __name__ == "__main__":
    main()
