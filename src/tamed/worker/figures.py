"""What a worker measures of itself for the operations endpoint: connections, and the lag of its event loop.

The figures are rows of the worker's table, as the application's metrics are (see `tamed.metrics.values`).
"""

import asyncio
from typing import Final

from tamed.metrics.values import Value, Values
from tamed.service.application import Application
from tamed.worker.report import Serving

__all__ = ["measure"]

_INTERVAL: Final = 0.5  # seconds
_BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, float("inf"))
_LAG: Final = "tamed_event_loop_lag_seconds"
_LAG_HELP: Final = "How late the event loop of a worker runs what is due."
_OPEN: Final = ("gauge", "tamed_connections_open", "tamed_connections_open")
_OPEN_HELP: Final = "Open connections."
_ACCEPTED: Final = ("counter", "tamed_connections_accepted", "tamed_connections_accepted_total")
_ACCEPTED_HELP: Final = "Accepted connections."


async def measure(values: Values, application: Application) -> None:
    """Measure until cancelled."""
    loop = asyncio.get_running_loop()
    lag = _Histogram(values)
    while True:
        _count_connections(values, application)
        due = loop.time() + _INTERVAL
        await asyncio.sleep(_INTERVAL)
        lag.observe(max(0.0, loop.time() - due))


def _count_connections(values: Values, application: Application) -> None:
    counts: dict[str, tuple[int, int]] = {}
    for service in application.walk():
        if isinstance(service, Serving):
            name = service.full_name
            connections, accepted = counts.get(name, (0, 0))
            counts[name] = connections + int(service.connections), accepted + int(service.accepted)
    for name, (connections, accepted) in counts.items():
        labels = ("service",), (name,)
        values.value(*_OPEN, *labels, _OPEN_HELP, "livesum").set(connections)
        values.value(*_ACCEPTED, *labels, _ACCEPTED_HELP).set(accepted)


class _Histogram:
    """The histogram of the event loop's lag."""

    def __init__(self, values: Values) -> None:
        self._sum: Value = values.value("histogram", _LAG, f"{_LAG}_sum", (), (), _LAG_HELP)
        self._buckets = [
            (bound, values.value("histogram", _LAG, f"{_LAG}_bucket", ("le",), (_text(bound),), _LAG_HELP))
            for bound in _BOUNDS
        ]

    def observe(self, seconds: float) -> None:
        """Count a lag."""
        self._sum.inc(seconds)
        next(value for bound, value in self._buckets if seconds <= bound).inc(1)


def _text(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(bound)
