"""The comparisons, each a function of its own; `all_comparisons` has them in the order of the table."""

from collections.abc import Sequence

from bench.compare import Comparison
from bench.measures.burst import burst
from bench.measures.cpu import handlers, poems, poems_logged
from bench.measures.growth import growth
from bench.measures.idle import idle
from bench.measures.latency import latency
from bench.measures.lines import lines
from bench.measures.memory import memory
from bench.measures.ops import increment, operations, scrape
from bench.measures.pool import further_workers, pool_reload, replacement
from bench.measures.programs import programs_kept
from bench.measures.start import start, start_daemon
from bench.measures.trees import trees
from bench.measures.web import web
from bench.reload import reloads

__all__ = ["all_comparisons"]


def all_comparisons() -> Sequence[Comparison]:
    """Return every comparison."""
    return [
        poems(),
        poems_logged(),
        latency(),
        *handlers(),
        idle(),
        start(),
        *start_daemon(),
        burst(),
        lines(),
        memory(),
        further_workers(),
        replacement(),
        pool_reload(),
        *trees(),
        reloads(),
        *web(),
        programs_kept(),
        increment(),
        scrape(),
        operations(),
        *growth(),
    ]
