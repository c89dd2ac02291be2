"""How long clients wait, at a load that the server can bear."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.compare import Comparison, Contestant, Figure, Figures, Goal
from bench.load import Load
from bench.machine import LOAD_CORE
from bench.peers import NGINX, minimal, nginx, tamed_poetry
from bench.process import HOST, POEM, Process

__all__ = ["latency"]

_SHARE = 0.8
_TRIALS = 3
_SECONDS = 2.0

_FIGURES = {
    "p50": Figure("p50", "us", 1e6, 0),
    "p99": Figure("p99", "us", 1e6, 0),
    "max": Figure("max", "ms", 1e3, 1),
    "rate": Figure("served a second", "", 1, 0),
}


class _Rate:
    """The rate for all contestants: a share of what the first of them, in this run of ours, can serve.

    That is the least of some measurements: at a rate that is too high for a moment, clients queue, and the
    figures are those of an overload.
    """

    def __init__(self) -> None:
        self._rate = 0.0

    def measure(self, start: Callable[[Path], Process]) -> Figures:
        with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as server:
            assert server.port is not None
            where = HOST, server.port
            full = [Load(where, [POEM], 20_000, cpu=LOAD_CORE).run().rate for _ in range(_TRIALS)]
            self._rate = self._rate or _SHARE * min(full)
            load = Load(where, [POEM], seconds=_SECONDS, at_once=1000, rate=self._rate, cpu=LOAD_CORE)
            result = load.run()
        return {"p50": result.p50, "p99": result.p99, "max": result.max, "rate": result.rate}


def latency() -> Comparison:
    """Return the comparison at 80 % of what ours can serve, with connections that begin by the clock."""
    measure = _Rate().measure
    return Comparison(
        "p99",
        "Latency at 80 % load, by the clock",
        _FIGURES,
        [
            Contestant("tamed", partial(measure, lambda _: tamed_poetry("--log-level", "warning"))),
            Contestant("nginx", partial(measure, nginx), NGINX),
            Contestant("C, minimal", partial(measure, lambda _: minimal())),
        ],
        [Goal("p99 at 80 % load", "p99", "tamed", "nginx", 1.0)],
    )
