"""What a worker shows of its application: reports and stacks on request, and metrics all the time.

The event loop answers a request, between two of its callbacks; `tamed.supervisor.reports` reads the answer. A
worker whose loop is blocked cannot answer: then the supervisor sends a signal, and `faulthandler` prints the
stacks of the threads.

The metrics, for the operations endpoint, are connections, the lag of the event loop, restarts of services,
the end of certificates, and lost lines of the log.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from tamed._os.secrets import SECRETS
from tamed.ipc.message import Message
from tamed.net.listen import ListeningService
from tamed.net.tls import Certificate
from tamed.service.application import Application
from tamed.service.service import Service

if TYPE_CHECKING:
    from tamed.metrics.values import Value, Values

__all__ = [
    "CERTIFICATE_END",
    "CERTIFICATE_END_HELP",
    "Serving",
    "certificates_of",
    "hooks_of",
    "measure",
    "report_of",
    "serving",
    "stacks_of_process",
    "timings_of",
]

CERTIFICATE_END: Final = "tamed_certificate_end_timestamp_seconds"
"""The name of the metric of certificates; the operations process adds those of its endpoint."""

CERTIFICATE_END_HELP: Final = (
    "When the certificate ends that an endpoint shows: the first to end of all workers."
)
"""The help text of that metric."""

_DEEPEST = 32  # levels of services; services below them are not shown
_DIGITS = 6  # of the seconds of a start
_MOST_CERTIFICATES = 200
_SLOWEST = 20  # services in the timings of a start
_MOST = 2**53  # the largest integer that every reader of JSON can represent
_MOST_THREADS = 100
_MOST_TASKS = 2000  # examined tasks; others are only counted
_MOST_STACKS = 100  # different ones
_MOST_FRAMES = 40  # of a stack
_LONGEST = 300  # characters of a line
_INTERVAL: Final = 0.5  # seconds between two measurements
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


@runtime_checkable
class Serving(Protocol):
    """A service that counts its connections: our servers, Twisted's, and any other with these attributes."""

    connections: int
    accepted: int


def serving(application: Application) -> list[Serving]:
    """Return the services of an application that count connections."""
    return [service for service in application.walk() if isinstance(service, Serving)]


def certificates_of(application: Application) -> list[Certificate]:
    """Return the certificates that the servers of an application show."""
    servers = (service for service in application.walk() if isinstance(service, ListeningService))
    return [certificate for server in servers for certificate in server.certificates]


def report_of(application: Application) -> Message:
    """Return the report of an application."""
    counting = serving(application)
    return {
        "connections": _count(each.connections for each in counting),
        "accepted": _count(each.accepted for each in counting),
        "certificates": [each._asdict() for each in certificates_of(application)[:_MOST_CERTIFICATES]],
        "tree": _tree(application, _DEEPEST),
    }


def timings_of(application: Application, load: float) -> Message:
    """Return the durations of the start; ``load`` is that of importing the application, in seconds."""
    hooks = [(service.full_name, service.lifecycle.took) for service in application.walk()]
    slowest = sorted(hooks, key=lambda each: sum(each[1].values()), reverse=True)[:_SLOWEST]
    return {
        "took": round(load + sum(sum(took.values()) for _, took in hooks), _DIGITS),
        "load": round(load, _DIGITS),
        "services": [
            {"name": name} | {phase: round(took.get(phase, 0.0), _DIGITS) for phase in ("prepare", "start")}
            for name, took in slowest
            if took
        ],
    }


def hooks_of(application: Application) -> list[Message]:
    """Return the running hooks, each with its service and its running time in seconds."""
    now = monotonic()
    running = [(each.full_name, each.lifecycle.calling) for each in application.walk()]
    return [
        {"name": name, "hook": calling[0], "since": round(now - calling[1], _DIGITS)}
        for name, calling in running
        if calling is not None
    ][:_SLOWEST]


def _count(numbers: Iterable[int]) -> int:
    return min(max(int(sum(numbers)), 0), _MOST)  # the numbers may come from the application


def _tree(service: Service, deepest: int) -> Message:
    return {
        "name": str(service.name),
        "state": service.state.value,
        "restarts": service.restarts,
        "summary": SECRETS.hidden(str(service.summary)),
        "children": [_tree(child, deepest - 1) for child in service.children] if deepest > 1 else [],
    }


def stacks_of_process() -> Message:
    """Return the stacks of the threads, and those of the tasks of the running loop.

    Each stack is a list of lines, the outermost frame first. Tasks with the same stack are counted together.
    """
    tasks = list(asyncio.all_tasks())
    stacks: dict[tuple[str, ...], tuple[str, int]] = {}
    for task in tasks[:_MOST_TASKS]:
        lines = tuple(_lines_of_task(task))
        name, count = stacks.get(lines, (task.get_name(), 0))
        if count or len(stacks) < _MOST_STACKS:
            stacks[lines] = name, count + 1
    return {
        "threads": list(_threads())[:_MOST_THREADS],
        "tasks": [
            {"name": _shown(name), "count": count, "lines": list(lines)}
            for lines, (name, count) in stacks.items()
        ],
        "count": len(tasks),
    }


def _threads() -> Iterator[Message]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        lines = ["runs the event loop"] if ident == threading.get_ident() else _lines_of_frame(frame)
        yield {"name": _shown(names.get(ident, f"thread {ident}")), "lines": lines}


def _shown(name: str) -> str:
    """Return the name that the application gave to a thread or a task, for people."""
    return SECRETS.hidden(name)[:_LONGEST]


def _lines_of_frame(frame: FrameType | None) -> list[str]:
    lines: list[str] = []
    while frame is not None and len(lines) < _MOST_FRAMES:
        lines.append(_line(frame))
        frame = frame.f_back
    return lines[::-1]


def _lines_of_task(task: "asyncio.Task[Any]") -> Iterator[str]:
    """Yield the frames of a task: of its coroutine, of the awaited one, and so on."""
    if task is asyncio.current_task():
        yield "running"
        return
    awaited: Any = task.get_coro()
    for _ in range(_MOST_FRAMES):
        frame = _attribute(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        yield _line(frame)
        # `finish_hook` steps a service's hook itself, so the hook is not in the chain of awaited coroutines.
        hook = frame.f_locals.get("coroutine") if frame.f_code.co_name == "_resume" else None
        awaited = hook or _attribute(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    if awaited is not None:
        yield _waits_for(awaited)


def _waits_for(awaited: Any) -> str:
    kind = type(awaited)
    if kind.__name__ == "FutureIter":  # the iterator of an awaited future, which does not reveal its owner
        return "waits for a future"
    return f"waits for {kind.__module__}.{kind.__qualname__}"[:_LONGEST]


def _attribute(coroutine: Any, *names: str) -> Any:
    """Return the first of these attributes that the coroutine has."""
    return next((getattr(coroutine, name) for name in names if hasattr(coroutine, name)), None)


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return f'File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}'[:_LONGEST]


# Metrics: rows of the worker's table, as the application's are (see `tamed.metrics.values`), so nothing of
# ``prometheus_client`` is loaded for them.


async def measure(values: "Values", application: Application, lost: Callable[[], int]) -> None:
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

    def __init__(self, values: "Values", application: Application) -> None:
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

    def __init__(self, values: "Values") -> None:
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
