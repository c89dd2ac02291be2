"""Log lines a second, into a file that is rotated."""

import re
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.machine import LOAD_CORE, SERVER_CORE
from bench.process import BIN, PATIENCE, Process, command, programs, tamed

__all__ = ["lines"]

_LINES = {"lines": 50_000, "access": 400_000}
_CORES = (SERVER_CORE, LOAD_CORE)  # there is no load, and workers and supervisor may use what there is
_FIGURES = {
    "rate": Figure("lines a second", "", 1, 0),
    "lost": Figure("lost", "", 1, 0, exact=True),
}


def _measure(words: Sequence[str], kind: str, workers: int, log: Path) -> Figures:
    """Let processes log; tell how many lines a second were in the files in the end."""
    go = log.with_name("go")
    environment = {"BENCH_KIND": kind, "BENCH_GO": str(go), "BENCH_LINES": str(_LINES[kind])}
    with Process(words, environment=environment, cores=_CORES):
        _wait_until_quiet(log)
        time.sleep(0.3)  # the applications are there when they have begun to look for the file
        begin = time.time()
        go.touch()
        end = _wait_until_quiet(log)
    written = _count(log)
    return {"rate": written / (end - begin), "lost": workers * _LINES[kind] - written}


def _wait_until_quiet(log: Path) -> float:
    """Wait until nothing was written for a while; return when the last was."""
    deadline = time.monotonic() + PATIENCE
    begin = time.time()
    while time.monotonic() < deadline:
        last = _last_write(log)
        if last and time.time() - max(last, begin) > 0.5:
            return last
        time.sleep(0.05)
    raise RuntimeError(f"{log} is not written to, or all the time")


def _last_write(log: Path) -> float:
    return max((path.stat().st_mtime for path in log.parent.glob(f"{log.name}*")), default=0.0)


def _count(log: Path) -> int:
    pattern = re.compile(rb"sending \d+ bytes of poetry to \d+$", re.MULTILINE)
    return sum(len(pattern.findall(path.read_bytes())) for path in log.parent.glob(f"{log.name}*"))


def _tamed(*options: str, kind: str = "lines", workers: int = 1) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        where = ["--rundir", f"{folder}/run", "--log-file", log]
        settings = ["--log-rotate", "1 MB", "--log-keep", "1000"]
        words = tamed("run", *where, *settings, *options, programs / "services.py")
        return _measure(words, kind, workers, log)


def _twistd() -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        options = ["--nodaemon", f"--pidfile={folder}/pid", f"--logfile={log}"]
        words = command(BIN / "twistd", *options, "-y", programs / "fastpoetry.tac")
        return _measure(words, "lines", 1, log)


def lines() -> Comparison:
    """Return the comparison of lines that an application logs in a loop."""
    what = "log lines a second, through `logging`"
    return Comparison(
        "lines",
        "Log lines a second into a file that is rotated at 1 MB",
        _FIGURES,
        [
            Contestant("tamed, one process", _tamed),
            Contestant("tamed, supervisor and worker", partial(_tamed, "--workers", "1")),
            Contestant("tamed, supervisor and 4 workers", partial(_tamed, "--workers", "4", workers=4)),
            Contestant("tamed's servers, one process", partial(_tamed, kind="access")),
            Contestant(
                "tamed's servers, supervisor and worker", partial(_tamed, "--workers", "1", kind="access")
            ),
            Contestant("twistd", _twistd),
        ],
        [
            Goal(f"{what}, one process", "rate", "tamed, one process", "twistd", 2.2, at_least=True),
            Goal(f"{what}, 4 workers", "rate", "tamed, supervisor and 4 workers", "twistd", 4, at_least=True),
            Goal("log lines lost", "lost", "tamed, supervisor and 4 workers", None, 0),
            *(
                Goal(f"log lines a second of {who}", "rate", who, "twistd", 10, at_least=True)
                for who in ("tamed's servers, one process", "tamed's servers, supervisor and worker")
            ),
        ],
    )
