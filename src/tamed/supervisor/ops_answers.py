"""The answers to the operations process: the supervisor's health, status, metrics and news, as data."""

import os
from collections.abc import Callable
from typing import Any, Final

from tamed._os.proc import usage_of
from tamed.ipc.message import InvalidMessage, Message, read_number, read_text
from tamed.metrics.ledger import Ledger
from tamed.supervisor.events import EventLog
from tamed.supervisor.generation import WorkerState
from tamed.supervisor.intake import LogTail
from tamed.supervisor.loop import Reactor
from tamed.supervisor.ops_process import OpsAnswer
from tamed.supervisor.reports import read_certificates
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.status import StatusRequests
from tamed.supervisor.supervisor import Supervisor

__all__ = ["OpsAnswers"]

_MOST: Final = 200  # descriptors in a message; the kernel's limit is 253
_REPORTS: Final = 0.5  # seconds for workers to report; the process waits one second for the answer
_LONGEST: Final = 500  # characters of a text in an event, and
_LINES: Final = 12  # items of a list there, so that fifty events are never too long for a message
_MOST_COUNTED: Final = 2**53


class OpsAnswers:
    """Answers requests for health, status, metrics, and updates of the page.

    ``metrics`` are the tables of the workers, and ``sockets`` those on which they listen. ``log`` must
    receive everything that is logged, and ``lost`` returns the number of lost lines.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        reactor: Reactor,
        *,
        metrics: Ledger,
        status: StatusRequests,
        events: EventLog,
        log: LogTail,
        lost: Callable[[], int],
        sockets: SocketTable,
    ) -> None:
        self._sockets = sockets
        self._events = events
        self._log = log
        self._lost = lost
        self._supervisor = supervisor
        self._reactor = reactor
        self._metrics = metrics
        self._status = status
        self._begun = reactor.clock()

    def serve(self, question: Message, answer: OpsAnswer) -> None:
        """Answer a request, now or later. Raises InvalidMessage for an invalid one."""
        self._status.of_operations = read_certificates(question)
        match read_text(question, "ask"):
            case "health":
                answer(self._health())
            case "status":
                self._status.serve(answer, _REPORTS)
            case "view":
                self._answer_view(question, answer)
            case "metrics":
                self._answer_metrics(_serials(question), answer)
            case other:
                raise InvalidMessage(f"ask: {other[:60]!r}")

    def _health(self) -> Message:
        supervisor = self._supervisor
        now, patience = self._reactor.clock(), supervisor.plan.watchdog
        workers = supervisor.pool.workers.values()
        return {
            "state": supervisor.state,
            "phase": supervisor.phase.value,
            "is_draining": supervisor.is_draining,
            "ready": supervisor.ready,
            "wanted": supervisor.generation.count,
            "beats": any(
                now - each.heard <= patience and each.state is not WorkerState.STUCK for each in workers
            ),
            "last_error": supervisor.recovery.last_error,
            "checks": [each._asdict() for each in supervisor.checks.summaries()],
        }

    def _answer_view(self, question: Message, answer: OpsAnswer) -> None:
        """Answer with the status, and the events and log records since the last answer.

        Both are counted from the start of this program, which the number ``program`` identifies. For another
        program, everything that is kept is new.
        """
        program = round(self._begun * 1e6)
        is_known = read_number(question, "program", most=_MOST_COUNTED) == program
        events, log = (
            read_number(question, key, most=_MOST_COUNTED) if is_known else 0 for key in ("events", "log")
        )

        def add(status: Message) -> None:
            answer(
                {
                    "status": {**status, "events": []},
                    "program": program,
                    "events": self._events.count,
                    "new_events": [_shortened(event) for event in self._events.since(events)],
                    "log": self._log.count,
                    "new_records": self._log.since(log),
                }
            )

        self._status.serve(add, _REPORTS)

    def _answer_metrics(self, known: set[int], answer: OpsAnswer) -> None:
        pages = list(self._metrics.pages())
        new = [page for page in pages if page.serial not in known][:_MOST]
        message = {
            "figures": self._figures(),
            "pages": [[page.serial, page.slot] for page in pages],
            "new": [page.serial for page in new],
        }
        answer(message, [page.descriptor for page in new])

    def _figures(self) -> Message:
        supervisor = self._supervisor
        workers = list(supervisor.pool.workers.values())
        states = {state.value: 0 for state in WorkerState}
        for worker in workers:
            states[worker.state.value] += 1
        return {
            **supervisor.figures.export(),
            "name": supervisor.plan.name,
            "state": supervisor.state,
            "uptime": self._reactor.clock() - self._status.begun,
            "generation": supervisor.generation.number,
            "wanted": supervisor.generation.count,
            "restarts": supervisor.recovery.restarts,
            "states": states,
            "queues": self._sockets.queues(supervisor.generation.number),
            "checks": {each.name: not each.failing for each in supervisor.checks.summaries() if each.asked},
            "roles": supervisor.roles.status(),
            "certificates": self._status.of_operations,
            "log_records": self._log.by_level,
            "log_lost": self._lost(),
            "usage": [
                {"slot": each.number, "leaves": each.is_leaving, **_usage_of(each.pid)} for each in workers
            ],
            "supervisor": _usage_of(os.getpid()),
        }


def _shortened(fact: Any) -> Any:
    match fact:
        case str():
            return fact[:_LONGEST]
        case list():
            return [_shortened(each) for each in fact[-_LINES:]]
        case dict():
            return {key: _shortened(each) for key, each in fact.items()}
        case _:
            return fact


def _usage_of(pid: int) -> dict[str, Any]:
    memory, cpu = usage_of(pid)
    return {"memory": memory, "cpu": cpu}


def _serials(question: Message) -> set[int]:
    known = question.get("known")
    if not isinstance(known, list) or not all(isinstance(each, int) for each in known):
        raise InvalidMessage("known: expected numbers")
    return set(known)
