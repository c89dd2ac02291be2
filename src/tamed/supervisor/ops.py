"""The operations process: the supervisor starts it, restarts it, and answers its requests with data.

It parses HTTP, which the supervisor must not do, and its crash affects no other process. It has no privileges
and no application code. The supervisor binds its sockets, which stay open while it is restarted.
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from tamed._os.proc import usage_of
from tamed.errors import TamedError
from tamed.ipc.channel import Channel
from tamed.ipc.fault import fault_data
from tamed.ipc.handoff import Data, Keep
from tamed.ipc.message import InvalidMessage, Message, read_fault, read_number, read_text
from tamed.metrics.ledger import Ledger
from tamed.service.restart import Backoff
from tamed.supervisor.generation import WorkerState, how_it_ended
from tamed.supervisor.intake import LogTail
from tamed.supervisor.loop import NO_TIMER, Peer, Reactor
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import Platform
from tamed.supervisor.records import EventLog
from tamed.supervisor.reports import read_certificates
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.status import StatusRequests
from tamed.supervisor.supervisor import Supervisor

__all__ = ["OpsAnswer", "OpsAnswers", "OpsProcess"]

OpsAnswer = Callable[..., None]
"""Answers a request of the process: with a message, and with descriptors, which are copied."""

_MODULE: Final = "tamed.ops"
_BACKOFF: Final = Backoff(first=0.1, factor=2.0, maximum=30.0)
_BACKLOG: Final = 256
_PAUSE: Final = 0.2  # seconds
_STEADY: Final = 10.0  # seconds of service that reset the failure count
_LAST_GRACE: Final = 3.0  # seconds for its last responses
_GENERATION: Final = 0  # the generation of its sockets, which belong to no workers
_MOST: Final = 200  # descriptors in a message; the kernel's limit is 253
_REPORTS: Final = 0.5  # seconds for workers to report; the process waits one second for the answer
_LONGEST: Final = 500  # characters of a text in an event, and
_LINES: Final = 12  # items of a list there, so that fifty events are never too long for a message
_MOST_COUNTED: Final = 2**53


class OpsProcess:
    """Keeps the process running, from `start` on.

    ``sockets`` are those of its endpoints only. ``serve`` is called with each of its requests and an
    `OpsAnswer`, to answer now or later; it raises InvalidMessage for an invalid request. ``is_starting``
    returns whether the daemon is not ready yet.
    """

    def __init__(
        self,
        plan: Plan,
        platform: Platform,
        sockets: SocketTable,
        *,
        serve: Callable[[Message, OpsAnswer], None],
        is_starting: Callable[[], bool],
    ) -> None:
        self._plan = plan
        self._reactor = platform.reactor
        self._platform = platform
        self._sockets = sockets
        self._serve = serve
        self._is_starting = is_starting
        self._pid = 0
        self._peer: Peer | None = None
        self._started = 0.0
        self._heard = 0.0
        self._failures = 0
        self._fault = ""
        self._look_again = NO_TIMER
        self._is_ending = False

    def bind(self) -> None:
        """Bind the endpoints; clients wait in their queues. Raises a TamedError if that is impossible."""
        for text in self._endpoints:
            for sock in self._sockets.get(text, socket.SOCK_STREAM, 0, _GENERATION):
                sock.listen(_BACKLOG)

    @property
    def _endpoints(self) -> list[str]:
        return [text for text in (self._plan.ops, self._plan.ops_agent) if text]

    def start(self) -> None:
        """Start and watch the process, without privileges: the supervisor must have dropped its own."""
        if self._is_ending:
            return
        if self._plan.prepare_as_root and self._is_starting():
            self._reactor.later(_PAUSE, self.start)
            return
        try:
            self._spawn()
        except OSError as error:
            self._platform.log("ERROR", f"cannot start the operations process: {error}")
            self._retry()
        self._watch()

    def ended(self, pid: int, code: int) -> None:
        """Handle the end of a child, which may be this process."""
        if pid != self._pid:
            return
        if self._peer is not None:
            self._peer.receive()
            self._peer.close()
        self._pid = 0
        if self._is_ending or self._sockets.is_closed:
            return
        why, self._fault = self._fault or how_it_ended(code), ""
        wait = self._retry()
        self._platform.log("ERROR", f"operations process {pid}: {why}; restarting it in {wait:.1f} s")

    def end(self, grace: float) -> bool:
        """Let the process finish its responses and end; return True if it has ended or was killed.

        ``grace`` is the time that is left for it, in seconds. It is not restarted.
        """
        is_first, self._is_ending = not self._is_ending, True
        if not self._pid or grace <= 0:
            return True
        if is_first:
            pid = self._pid
            self._send({"drain": True})
            self._reactor.later(min(grace, _LAST_GRACE), lambda: self._platform.kill(pid))
        return False

    def announce_upgrade(self, is_upgrading: bool) -> None:
        """Make the process wait patiently while another program takes over.

        `resume` ends that; so does False, after the upgrade has failed.
        """
        if self._pid:
            self._send({"upgrading": is_upgrading})

    def export(self, keep: Keep) -> Data:
        """Return this as data, for the next program."""
        channel = self._channel
        return {
            "pid": self._pid,
            "started": self._started,
            "channel": None if channel is None else channel.export(keep),
            "sockets": self._sockets.export(keep),
        }

    def resume(self, left: Data) -> None:
        """Resume from the state of the previous program, instead of `bind` and `start`."""
        self._sockets.resume(left["sockets"])
        if left["channel"] is None:
            self.start()
            return
        self._pid, self._started = left["pid"], left["started"]
        self._begin(Channel.imported(left["channel"]))
        self.announce_upgrade(False)
        self._watch()

    def _spawn(self) -> None:
        with Channel.to_child() as (channel, theirs):
            self._pid = self._platform.spawn(theirs, _MODULE)
        self._started = self._reactor.clock()
        self._begin(channel)
        plan = self._plan
        order = {
            "endpoint": plan.ops,
            "agent": plan.ops_agent,
            "hosts": [*plan.ops_hosts],
            "layout": plan.log.layout,
            "heartbeat": plan.heartbeat_interval,
        }
        self._send(order)

    def _begin(self, channel: Channel) -> None:
        self._heard = self._reactor.clock()
        self._peer = Peer(channel, self._reactor, self._handle, self._invalid)

    def _retry(self) -> float:
        """Schedule another start; return the seconds until then."""
        steady = self._reactor.clock() - self._started >= _STEADY
        self._failures = 1 if steady else self._failures + 1
        wait = _BACKOFF.delay(self._failures)
        self._reactor.later(wait, self.start)
        return wait

    def _watch(self) -> None:
        """Kill the process if it no longer answers; it is then restarted."""
        self._look_again.cancel()
        self._look_again = self._reactor.later(self._plan.watchdog, self._watch)
        if self._pid and self._reactor.clock() - self._heard > self._plan.watchdog:
            self._fault = "did not answer and was killed"
            self._platform.signal(self._pid, signal.SIGKILL)

    def _invalid(self, error: InvalidMessage) -> None:
        self._fault = f"sent an invalid message ({error}) and was killed"
        self._platform.kill(self._pid)

    def _handle(self, message: Message) -> None:
        self._heard = self._reactor.clock()
        match message:
            case {"ask": _}:
                number = read_number(message, "number")
                self._serve(message, lambda answer, found=(): self._answer(number, answer, found))
            case {"listen": _}:
                self._answer(read_number(message, "number"), *self._bound(read_text(message, "listen")))
            case {"fault": _}:
                lines, _ = read_fault(message)
                self._fault = lines[-1].removeprefix("tamed: ")

    def _bound(self, text: str) -> tuple[Message, list[int]]:
        if text not in self._endpoints:
            raise InvalidMessage("listen: another endpoint")
        try:
            sockets = self._sockets.get(text, socket.SOCK_STREAM, 0, _GENERATION)
        except TamedError as error:
            return {"fault": fault_data(error)}, []
        return {}, [sock.fileno() for sock in sockets]

    def _answer(self, number: int, answer: Message, descriptors: Sequence[int] = ()) -> None:
        self._send({**answer, "answer": number}, descriptors)

    def _send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        if self._peer is not None and self._channel is not None:
            with suppress(OSError):
                self._peer.send(message, descriptors)

    @property
    def _channel(self) -> Channel | None:
        """Its channel, unless that is closed."""
        return None if self._peer is None or self._peer.channel.fileno() < 0 else self._peer.channel


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
