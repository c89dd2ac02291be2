"""What workers report of themselves when somebody asks: collected from all of them, and checked.

A report goes on to the administrator's command, so it has nothing that is not of the form that is read here.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tamed.ipc.message import InvalidMessage, Message, read_number, read_text
from tamed.supervisor.loop import Reactor, Timer

__all__ = ["ReportCollector", "Reports", "read_report"]

Reports = dict[int, Message]
"""The reports of workers, by their pid."""

_PATIENCE = 5.0  # seconds for the workers to answer
_DEEPEST = 32  # levels of services, as the worker sends them
_MOST = 2**53  # what every reader of JSON can hold


class _Request(NamedTuple):
    """A request that was passed on to workers, those that have not answered it yet, and the answers."""

    done: Callable[[Reports], object]
    waiting: set[int]
    timer: Timer
    reports: Reports


class ReportCollector:
    """Waits for the reports of workers, for each request by itself.

    A worker that does not answer in time is left out.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._requests: list[_Request] = []

    def collect(self, pids: Iterable[int], done: Callable[[Reports], object]) -> None:
        """Call ``done`` with the reports of these workers, which were asked, when all that answer have."""
        waiting = set(pids)
        if not waiting:
            done({})
            return
        timer = self._reactor.later(_PATIENCE, lambda: self._close(request))
        request = _Request(done, waiting, timer, {})
        self._requests.append(request)

    def received(self, pid: int, report: Message) -> None:
        """Take a worker's report, for all who wait for one of it."""
        for request in self._requests:
            request.reports[pid] = report
        self.will_not_answer(pid)

    def will_not_answer(self, pid: int) -> None:
        """Wait for a worker no longer: it has reported, or it comes to its end."""
        for request in list(self._requests):
            request.waiting.discard(pid)
            if not request.waiting:
                self._close(request)

    def _close(self, request: _Request) -> None:
        request.timer.cancel()
        self._requests.remove(request)
        request.done(request.reports)


def read_report(message: Message) -> Message:
    """Return what is known of a report. Raises InvalidMessage for one that no worker of ours has made."""
    report: Message = {}
    for key in ("connections", "accepted"):
        if key in message:
            report[key] = read_number(message, key, most=_MOST)
    if "tree" in message:
        report["tree"] = _read_tree(message["tree"], _DEEPEST)
    return report


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
