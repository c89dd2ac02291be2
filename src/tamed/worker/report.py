"""A worker's report of its application, on request; `tamed.supervisor.reports` reads it."""

from collections.abc import Iterable
from time import monotonic
from typing import Protocol, runtime_checkable

from tamed._os.secrets import SECRETS
from tamed.ipc.message import Message
from tamed.net.listen import ListeningService
from tamed.net.tls import Certificate
from tamed.service.application import Application
from tamed.service.service import Service

__all__ = ["Serving", "certificates_of", "hooks_of", "report_of", "serving", "timings_of"]

_DEEPEST = 32  # levels of services; services below them are not shown
_DIGITS = 6  # of the seconds of a start
_MOST_CERTIFICATES = 200
_SLOWEST = 20  # services in the timings of a start
_MOST = 2**53  # the largest integer that every reader of JSON can represent


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
