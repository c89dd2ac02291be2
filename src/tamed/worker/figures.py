"""A worker's own metrics for the operations endpoint.

Connections, the lag of its event loop, restarts of services, the end of certificates, and lost lines of the
log. The figures are rows of the worker's table, as the application's metrics are (see
`tamed.metrics.values`), so nothing of ``prometheus_client`` is loaded for them.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from tamed.metrics.values import Value, Values
from tamed.net.listen import ListeningService
from tamed.service.application import Application
from tamed.worker.report import Serving, certificates_of

__all__ = ["CERTIFICATE_END", "CERTIFICATE_END_HELP", "measure"]

CERTIFICATE_END: Final = "tamed_certificate_end_timestamp_seconds"
"""The name of the metric of certificates; the operations process adds those of its endpoint."""

CERTIFICATE_END_HELP: Final = (
    "When the certificate ends that an endpoint shows: the first to end of all workers."
)
"""The help text of that metric."""

_INTERVAL: Final = 0.5  # seconds
_BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, float("inf"))
_LAG: Final = "tamed_event_loop_lag_seconds"
_LAG_HELP: Final = "Delay with which the event loop of a worker runs due callbacks."
_OPEN: Final = ("gauge", "tamed_connections_open", "tamed_connections_open")
_OPEN_HELP: Final = "Open connections."
_ACCEPTED: Final = ("counter", "tamed_connections_accepted", "tamed_connections_accepted_total")
_ACCEPTED_HELP: Final = "Accepted connections."
_RESTARTS: Final = ("counter", "tamed_service_restarts", "tamed_service_restarts_total")
_RESTARTS_HELP: Final = "Restarts of a service inside its worker, by its restart policy."
_ENDS: Final = ("gauge", CERTIFICATE_END, CERTIFICATE_END)
_LOST: Final = ("counter", "tamed_log_unsent_lines", "tamed_log_unsent_lines_total")
_LOST_HELP: Final = "Log lines that workers lost because the supervisor read too slowly."


async def measure(values: Values, application: Application, lost: Callable[[], int]) -> None:
    """Measure until cancelled. ``lost`` returns the number of log lines that this process has lost."""
    loop = asyncio.get_running_loop()
    lag = _Histogram(values)
    services = _Services(values, application)
    unsent = values.value(*_LOST, (), (), _LOST_HELP)
    while True:
        services.measure()
        unsent.set(lost())
        due = loop.time() + _INTERVAL
        await asyncio.sleep(_INTERVAL)
        lag.observe(max(0.0, loop.time() - due))


class _Services:
    """The figures of an application's services."""

    def __init__(self, values: Values, application: Application) -> None:
        self._values = values
        self._application = application
        self._endpoints: dict[str, str] = {}  # of services with addresses, past or present, by name

    def measure(self) -> None:
        """Update the metrics."""
        connections: dict[str, list[tuple[int, int]]] = {}
        restarts: dict[str, int] = {}
        for service in self._application.walk():
            name = service.full_name
            restarts[name] = restarts.get(name, 0) + service.restarts
            if isinstance(service, Serving):
                self._endpoints[name] = _endpoint_of(service) or self._endpoints.get(name, "")
                connections.setdefault(name, []).append((int(service.connections), int(service.accepted)))
        for name, counts in connections.items():
            labels = ("service", "endpoint"), (name, self._endpoints[name])
            opened, accepted = map(sum, zip(*counts, strict=True))
            self._values.value(*_OPEN, *labels, _OPEN_HELP, "livesum").set(opened)
            self._values.value(*_ACCEPTED, *labels, _ACCEPTED_HELP).set(accepted)
        for name, count in restarts.items():
            self._values.value(*_RESTARTS, ("service",), (name,), _RESTARTS_HELP).set(count)
        for endpoint, file, ends in certificates_of(self._application):
            if ends is not None:
                names = ("endpoint", "certificate")
                self._values.value(*_ENDS, names, (endpoint, file), CERTIFICATE_END_HELP, "livemin").set(ends)


def _endpoint_of(service: object) -> str:
    """Return the addresses of a server; empty while it is not bound, or if they are unknown."""
    return ", ".join(service.addresses) if isinstance(service, ListeningService) else ""


class _Histogram:
    """The histogram of the event loop's lag."""

    def __init__(self, values: Values) -> None:
        self._sum: Value = values.value("histogram", _LAG, f"{_LAG}_sum", (), (), _LAG_HELP)
        self._buckets = [
            (bound, values.value("histogram", _LAG, f"{_LAG}_bucket", ("le",), (label,), _LAG_HELP))
            for bound in _BOUNDS
            for label in ["+Inf" if bound == float("inf") else repr(bound)]
        ]

    def observe(self, seconds: float) -> None:
        """Count a lag, in seconds."""
        self._sum.inc(seconds)
        next(value for bound, value in self._buckets if seconds <= bound).inc(1)
