"""The reports of workers, on request: collected from all of them, and validated; and the status made of them.

A report is passed on to the administrator's command, which validates the supervisor's answer. So only the
fields that are validated here are kept.
"""

from __future__ import annotations

from functools import partial

from tamed.ipc.message import (
    InvalidMessage,
    Message,
    list_of,
    optional,
    read_fields,
    read_number,
    read_objects,
    read_seconds,
    read_text,
    read_texts,
    read_token,
    read_truth,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # a command reads reports too, and has no loop
    from collections.abc import Callable, Iterable
    from typing import Any, Final

    from tamed.ipc.message import Reader
    from tamed.supervisor.loop import Reactor, Timer

__all__ = [
    "ReportCollector",
    "Reports",
    "read_answered_stacks",
    "read_certificates",
    "read_events",
    "read_report",
    "read_stacks",
    "read_status",
    "read_timings",
]

Reports = dict[int, Message]
"""The reports of workers, by their pid."""

_DEEPEST = 32  # levels of services, as the worker sends them
_MOST_SERVICES = 20  # in the timings of a start
_LONGEST_NAME = 200  # characters of a service's path there
_LATEST = 253_402_300_799  # seconds since the epoch: the last one that a certificate can have
_MOST = 2**53  # the largest integer that every reader of JSON can represent


class _Request:
    """A request to workers: the workers that have not answered yet, and the answers."""

    def __init__(self, done: Callable[[Reports], object], waiting: set[int], timer: Timer) -> None:
        self.done = done
        self.waiting = waiting
        self.timer = timer
        self.reports: Reports = {}


class ReportCollector:
    """Waits for the reports of workers, for each request separately.

    The result omits workers that do not answer in time.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._requests: list[_Request] = []

    def collect(self, pids: Iterable[int], done: Callable[[Reports], object], patience: float) -> None:
        """Call ``done`` with the reports of these workers, which were asked, when all have answered.

        After ``patience``, in seconds, it is called without the missing ones.
        """
        waiting = set(pids)
        if not waiting:
            done({})
            return
        timer = self._reactor.later(patience, lambda: self._close(request))
        request = _Request(done, waiting, timer)
        self._requests.append(request)

    def received(self, pid: int, report: Message) -> None:
        """Add a worker's report to all requests that wait for it."""
        for request in self._requests:
            request.reports[pid] = report
        self.will_not_answer(pid)

    def will_not_answer(self, pid: int) -> None:
        """Stop waiting for a worker that has reported or is ending."""
        for request in list(self._requests):
            request.waiting.discard(pid)
            if not request.waiting:
                self._close(request)

    def _close(self, request: _Request) -> None:
        if request in self._requests:  # otherwise the end of an earlier one has closed it
            request.timer.cancel()
            self._requests.remove(request)
            request.done(request.reports)


def read_report(message: Message) -> Message:
    """Return the known fields of a report. Raises InvalidMessage for an invalid report."""
    report: Message = {}
    for key in ("connections", "accepted"):
        if key in message:
            report[key] = read_number(message, key, most=_MOST)
    if "certificates" in message:
        report["certificates"] = read_certificates(message)
    if "tree" in message:
        report["tree"] = _read_tree(message["tree"], _DEEPEST)
    return report


def read_certificates(message: Message) -> list[Message]:
    """Return the certificates of a report: each with the endpoint, the file, and the end, which may be None.

    Raises InvalidMessage for invalid ones.
    """
    read = list_of(
        endpoint=read_text, file=read_text, ends=optional(lambda m, key: min(read_seconds(m, key), _LATEST))
    )
    found: list[Message] = read(message, "certificates")
    return found


def read_stacks(message: Message) -> Message:
    """Return the stacks of a worker's threads and tasks, and the hooks that run. Raises InvalidMessage."""
    return read_fields(
        message,
        threads=list_of(name=read_text, lines=read_texts),
        tasks=list_of(name=read_text, count=read_number, lines=read_texts),
        hooks=list_of(name=read_text, hook=read_text, since=read_seconds),
        count=read_number,
    )


def read_timings(message: Message) -> Message:
    """Return the durations of a worker's start, in seconds: in total, and of its slowest services.

    Raises InvalidMessage for invalid data.
    """
    timings = read_fields(
        message,
        took=read_seconds,
        load=read_seconds,
        services=list_of(
            name=lambda m, key: read_text(m, key)[:_LONGEST_NAME], prepare=read_seconds, start=read_seconds
        ),
    )
    return {**timings, "services": timings["services"][:_MOST_SERVICES]}


def _read_tree(tree: Any, deepest: int) -> Message:
    if not isinstance(tree, dict) or not isinstance(tree.get("children"), list) or deepest < 1:
        raise InvalidMessage("tree: expected a service with its children")
    service = read_fields(tree, name=read_text, state=read_text, restarts=read_number, summary=read_text)
    return {**service, "children": [_read_tree(child, deepest - 1) for child in tree["children"]]}


def read_status(message: Message) -> Message:
    """Return the known fields of a status. Raises InvalidMessage for an invalid one."""
    return read_fields(
        message,
        name=read_text,
        state=read_text,
        pid=read_number,
        uptime=read_seconds,
        generation=read_number,
        reloading=read_truth,
        endpoints=read_texts,
        certificates=list_of(endpoint=read_text, file=read_text, ends=optional(read_text)),
        ready=read_number,
        wanted=read_number,
        restarts=read_number,
        checks=_CHECKS,
        last_error=read_text,
        last_error_at=optional(read_text),
        roles=_ROLES,
        log=read_text,
        events_file=read_text,
        events=read_events,
        workers=_read_workers,
        warnings=read_texts,
    )


_CHECKS: Final = list_of(
    name=read_text, gates=read_truth, asked=read_number, failing=read_number, why=read_text
)
_ROLES: Final = list_of(
    role=read_text,
    scope=read_text,
    state=read_text,
    worker=optional(read_number),
    pid=optional(read_number),
    generation=optional(read_number),
    age=read_seconds,
    token=read_token,
    transitions=read_number,
    vacant=read_seconds,
    standby=read_number,
    holder=read_text,
    trouble=read_text,
)
_WORKER: Final[dict[str, Reader]] = {
    "pid": read_number,
    "number": read_number,
    "generation": read_number,
    "state": read_text,
    "uptime": read_seconds,
    "memory": optional(partial(read_number, most=_MOST)),
    "cpu": optional(read_seconds),
}


def _read_workers(message: Message, key: str) -> list[Message]:
    return [{**read_fields(each, **_WORKER), **read_report(each)} for each in read_objects(message, key)]


def read_answered_stacks(message: Message) -> Message:
    """Return the stacks of one worker in an answer. Raises InvalidMessage for anything else."""
    origin = read_fields(
        message,
        pid=read_number,
        worker=read_number,
        generation=read_number,
        state=read_text,
        answered=read_truth,
    )
    return {**origin, **read_stacks(message), "printed": read_texts(message, "printed")}


def read_events(message: Message, key: str) -> list[Message]:
    """Return the events at a key, whole. Raises InvalidMessage for anything else."""
    events = read_objects(message, key)
    for event in events:
        read_fields(event, time=read_text, event=read_text, text=read_text)
    return events
