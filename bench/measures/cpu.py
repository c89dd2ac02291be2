"""CPU of the server for each connection that it serves, its children's included."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.load import Load
from bench.machine import LOAD_CORE
from bench.peers import (
    NGINX,
    loops,
    minimal,
    nginx,
    tamed_application,
    tamed_poetry,
    twistd,
)
from bench.process import HOST, POEM, Process

__all__ = ["handlers", "poems", "poems_logged"]

_POEMS = 20_000
_WARM_UP = 2_000
_FIGURES = {
    "cpu": Figure("CPU each", "us", 1e6, 1),
    "rate": Figure("served a second", "", 1, 0),
    "failures": Figure("failed", "", 1, 0, exact=True),
}

Start = Callable[[Path], Process]
"""Makes a server; gets a folder for its files."""


def cpu_per_poem(start: Start) -> Figures:
    """Serve poems, 32 clients at a time, as fast as they come; tell what each took."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as server:
        assert server.port is not None
        where = (HOST, server.port)
        Load(where, [POEM], _WARM_UP, cpu=LOAD_CORE).run()
        before = server.cpu()
        result = Load(where, [POEM], _POEMS, cpu=LOAD_CORE).run()
        used = server.cpu() - before
    return {"cpu": used / max(result.ok, 1), "rate": result.rate, "failures": result.failures}


def _contestant(name: str, start: Start, missing: str = "") -> Contestant:
    return Contestant(name, partial(cpu_per_poem, start), missing)


def poems() -> Comparison:
    """Return the comparison without a log."""
    return Comparison(
        "cpu",
        "CPU per served poem, no log line",
        _FIGURES,
        [
            _contestant("tamed", lambda _: tamed_poetry("--log-level", "warning")),
            _contestant("C, minimal", lambda _: minimal()),
            _contestant("nginx", nginx, NGINX),
            _contestant("uvloop, raw accept", lambda _: loops("accept", "uvloop")),
            _contestant("uvloop protocol", lambda _: loops("protocol", "uvloop")),
            _contestant("asyncio protocol", lambda _: loops("protocol", "asyncio")),
            _contestant("asyncio streams", lambda _: loops("streams", "asyncio")),
            _contestant("twistd", partial(twistd, "poem")),
        ],
        [
            Goal("CPU per served poem, no log line", "cpu", "tamed", "C, minimal", 1.05),
            Goal("CPU per served poem, no log line", "cpu", "tamed", "nginx", 1.0),
        ],
    )


def poems_logged() -> Comparison:
    """Return the comparison with a line in a rotating file for each connection."""
    what = "CPU per served poem, one log line each"
    return Comparison(
        "cpu-log",
        what + ", into a file that is rotated at 1 MB (nginx's is not)",
        _FIGURES,
        [
            _contestant("tamed", lambda folder: tamed_poetry("--workers", "1", *_log(folder))),
            _contestant("tamed, one process", lambda folder: tamed_poetry(*_log(folder))),
            _contestant("nginx", partial(nginx, access_log=True), NGINX),
            _contestant("twistd", lambda folder: twistd("poem-log", folder, log=f"{folder}/log")),
        ],
        [
            Goal(what, "cpu", "tamed", "twistd", 0.33),
            Goal(what, "cpu", "tamed", "nginx", 1.25),
        ],
        note="tamed is a supervisor and one worker, and both count.",
    )


def _log(folder: Path) -> Sequence[str]:
    return ["--rundir", f"{folder}/run", "--log-file", f"{folder}/log", "--log-rotate", "1 MB"]


def handlers() -> Sequence[Comparison]:
    """Return the comparisons of our servers with the bare loops, with the same handlers."""
    return [_handler(kind, name, loop) for kind, name in _SERVERS for loop in ("uvloop", "asyncio")]


_SERVERS = (("protocol", "ProtocolServer"), ("streams", "StreamServer"))


def _handler(kind: str, name: str, loop: str) -> Comparison:
    return Comparison(
        f"{kind}-{loop}",
        f"CPU per connection of {name} on {loop}, the same handler on both sides",
        _FIGURES,
        [
            _contestant("tamed", lambda _: tamed_application(kind, "--loop", loop)),
            _contestant("bare loop", lambda _: loops(kind, loop)),
        ],
        [Goal(f"{name}, {loop}", "cpu", "tamed", "bare loop", 1.03)],
    )
