"""Clients that connect all at once: whether any is refused, or waits until its SYN is sent again."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.load import Load
from bench.machine import LOAD_CORE
from bench.peers import NGINX, nginx, tamed_poetry, twistd
from bench.process import HOST, POEM, Process

__all__ = ["burst"]

_FIGURES = {
    "failures": Figure("failed", "", 1, 0, exact=True),
    "late": Figure("waited 1 s or more", "", 1, 0, exact=True),
    "p99": Figure("p99", "ms", 1e3, 1),
}


def _measure(start: Callable[[Path], Process]) -> Figures:
    with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as server:
        assert server.port is not None
        result = Load((HOST, server.port), [POEM], 8192, at_once=1024, cpu=LOAD_CORE).run()
    return {"failures": result.failures, "late": result.late, "p99": result.p99}


def burst() -> Comparison:
    """Return the comparison of 8,192 connections, 1,024 at a time."""
    what = "1,024 clients connecting at once"
    return Comparison(
        "burst",
        "8,192 connections, 1,024 at a time",
        _FIGURES,
        [
            Contestant("tamed", partial(_measure, lambda _: tamed_poetry("--log-level", "warning"))),
            Contestant("nginx", partial(_measure, nginx), NGINX),
            Contestant("twistd", partial(_measure, partial(twistd, "poem", backlog=50))),
        ],
        [
            Goal(what + ": failed", "failures", "tamed", None, 0),
            Goal(what + ": waited for a SYN", "late", "tamed", None, 0),
        ],
        note="twistd has its own backlog of 50 here.",
    )
