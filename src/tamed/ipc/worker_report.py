"""What a worker reports of itself when somebody asks: made in the worker, and checked in the supervisor.

It goes on to the administrator's command, so nothing is in it that is not of the form that is read here.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tamed.ipc.message import InvalidMessage, Message, read_number, read_text

if TYPE_CHECKING:  # only the worker has them: the supervisor runs no services
    from tamed.service.application import Application
    from tamed.service.service import Service

__all__ = ["Serving", "read_report", "report_of", "serving"]

_DEEPEST = 32  # levels of services; what is below them is not shown
_MOST = 2**53  # what every reader of JSON can hold


@runtime_checkable
class Serving(Protocol):
    """A service that keeps count of its connections: our servers, Twisted's, and whoever's else does so."""

    connections: int
    accepted: int


def serving(application: "Application") -> list[Serving]:
    """Return the services of an application that count connections."""
    return [service for service in application.walk() if isinstance(service, Serving)]


def report_of(application: "Application") -> Message:
    """Return how an application stands."""
    counting = serving(application)
    return {
        "connections": _count(each.connections for each in counting),
        "accepted": _count(each.accepted for each in counting),
        "tree": _tree(application, _DEEPEST),
    }


def read_report(message: Message) -> Message:
    """Return what is known of a report. Raises InvalidMessage for one that was not made here."""
    report: Message = {}
    for key in ("connections", "accepted"):
        if key in message:
            report[key] = read_number(message, key, most=_MOST)
    if "tree" in message:
        report["tree"] = _read_tree(message["tree"], _DEEPEST)
    return report


def _count(numbers: Iterable[int]) -> int:
    return min(max(int(sum(numbers)), 0), _MOST)  # they may be the application's own


def _tree(service: "Service", deepest: int) -> Message:
    return {
        "name": str(service.name),
        "state": service.state.value,
        "restarts": service.restarts,
        "summary": str(service.summary),
        "children": [_tree(child, deepest - 1) for child in service.children] if deepest > 1 else [],
    }


def _read_tree(tree: Any, deepest: int) -> Message:
    if not isinstance(tree, dict) or not isinstance(tree.get("children"), list) or deepest < 1:
        raise InvalidMessage("tree: expected a service with its children")
    return {
        "name": read_text(tree, "name"),
        "state": read_text(tree, "state"),
        "restarts": read_number(tree, "restarts"),
        "summary": read_text(tree, "summary"),
        "children": [_read_tree(child, deepest - 1) for child in tree["children"]],
    }
