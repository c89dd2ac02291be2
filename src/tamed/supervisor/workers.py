"""The workers of a supervisor: requests for them, messages, and reaping.

The receiver of the `WorkerEvents` decides on the consequences.
"""

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tamed.errors import SystemRefused, TamedError
from tamed.ipc.channel import Channel
from tamed.ipc.fault import fault_data
from tamed.ipc.handoff import Data, Keep
from tamed.ipc.message import (
    InvalidMessage,
    Message,
    read_errno,
    read_fault,
    read_number,
    read_object,
    read_text,
)
from tamed.supervisor.generation import Generation, Worker, WorkerState, read_checks
from tamed.supervisor.loop import Peer
from tamed.supervisor.platform import Platform
from tamed.supervisor.reports import ReportCollector, Reports, read_report, read_stacks, read_timings
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.templates import ForkRequest, Templates

if TYPE_CHECKING:
    from tamed.metrics.ledger import Ledger

__all__ = ["WorkerEvents", "WorkerPool"]

_OWN_STATES = ("prepared", "starting", "ready")  # the states that a worker may report
_AT_WORK = (WorkerState.LOADING, WorkerState.STARTING)
_FEWEST_AT_ONCE = 2
_STATUSES = 255
_EVENTS = 1024 * 1024  # bytes of messages that may wait for a worker that gets events
_ONE, _ALL = "one", "all"  # the kinds of subscriptions
_MOST_SERVERS = 1000  # servers of one application on one endpoint
_MORE = "raise the limit with --max-files"


class WorkerEvents(Protocol):
    """The events of a pool's workers."""

    def worker_advanced(self, worker: Worker) -> None:
        """A worker has entered another state before it is ready, or is ready."""

    def worker_ended(self, worker: Worker, code: int) -> None:
        """A worker has ended, with this exit code, which is negative for a signal."""

    def worker_should_recycle(self, worker: Worker, why: str) -> object:
        """A worker requests its replacement; it repeats the request until it is replaced."""

    def worker_checked(self, worker: Worker) -> None:
        """The results of a worker's service checks have changed."""

    def files_read(self, files: dict[str, int]) -> None:
        """A worker has loaded these files, with these modification times."""

    def role_reported(self, worker: Worker, message: Message) -> None:
        """A service of a worker is on standby for its role, or is stopped. May raise InvalidMessage."""

    def worker_leaves(self, worker: Worker) -> None:
        """A worker is about to be drained."""

    def worker_forked(self, worker: Worker) -> None:
        """A requested worker was forked."""

    def worker_refused(self, worker: Worker, error: OSError) -> None:
        """A requested worker was not forked: the system refused it, or its template ended."""

    def child_ended(self, pid: int, code: int) -> None:
        """A child that is not a worker has ended, with this exit code."""


class WorkerPool:
    """All workers that have not been reaped, in ``workers`` by pid; ``events`` receives their events.

    A worker that was requested, and not forked yet, is not in ``workers``. It counts in its generation.
    ``metrics`` are the tables of their metrics, None without an operations endpoint.
    """

    def __init__(self, events: WorkerEvents, sockets: SocketTable, platform: Platform) -> None:
        self.workers: dict[int, Worker] = {}
        self.metrics: Ledger | None = None
        self.templates = Templates(platform)
        self._requested: dict[Worker, ForkRequest] = {}
        self._events = events
        kinds = ("report", "stacks", "shut")
        self._reports = {kind: ReportCollector(platform.reactor) for kind in kinds}
        self._reactor = platform.reactor
        self._sockets = sockets
        self._platform = platform

    def of(self, generation: Generation) -> list[Worker]:
        """Return the workers of a generation, including those that leave, and the requested ones."""
        return [worker for worker in self.everyone if worker.generation is generation]

    @property
    def everyone(self) -> list[Worker]:
        """All workers, and the requested ones."""
        return [*self.workers.values(), *self._requested]

    def staying(self, generation: Generation) -> list[Worker]:
        """Return the workers of a generation that neither leave nor are about to replace another."""
        return [each for each in self.of(generation) if not each.is_surplus and each.replaces is None]

    def missing(self, generation: Generation) -> list[int]:
        """Return the numbers of a generation's missing workers."""
        numbers = {worker.number for worker in self.staying(generation)}
        return [number for number in range(1, generation.count + 1) if number not in numbers]

    def holder(self, generation: Generation, number: int) -> Worker | None:
        """Return the staying worker of a number, ready or not; None if there is none."""
        return next((worker for worker in self.staying(generation) if worker.number == number), None)

    def has_room(self, generation: Generation) -> bool:
        """Return whether another worker may be started now. Workers that wait for others do not count.

        At most one worker per CPU starts at a time: more would not be ready sooner, and would take CPU time
        from the serving workers.
        """
        coming = [each for each in self.of(generation) if each.state in _AT_WORK]
        return len(coming) < max(_FEWEST_AT_ONCE, self._platform.cpus)

    def fill(self, generation: Generation) -> None:
        """Start missing workers of a generation, as many as `has_room` allows.

        Must be called again when one of them changes its state. Raises OSError if the system cannot start
        one.
        """
        for number in self.missing(generation):
            if not self.has_room(generation):
                break
            self.spawn(generation, number)

    def spawn(self, generation: Generation, number: int, replaces: Worker | None = None) -> None:
        """Request a worker from the template of its generation.

        Raises OSError if the system refuses what the request needs; a later refusal is an event.
        """
        worker = Worker(number, generation, self._reactor.clock(), replaces)
        self._requested[worker] = self.templates.fork(
            generation,
            {"worker": number},
            forked=lambda pid, channel: self._forked(worker, pid, channel),
            refused=lambda error: self._refused(worker, error),
            failed=lambda lines, status: self._failed(worker, lines, status),
        )

    def _forked(self, worker: Worker, pid: int, channel: Channel) -> None:
        """Give a forked worker its first order; it has done nothing yet."""
        del self._requested[worker]
        worker.begin(pid, self._reactor.clock())
        self.workers[pid] = worker
        self._connect(worker, channel)
        self._platform.identify(pid, worker.number)
        plan, generation = worker.generation.plan, worker.generation.number
        origin = {"instance": plan.name, "worker": worker.number, "generation": generation}
        self._send(worker, {**plan.first_order, "origin": origin})
        self._events.worker_forked(worker)

    def _refused(self, worker: Worker, error: OSError) -> None:
        del self._requested[worker]
        self._events.worker_refused(worker, error)

    def _failed(self, worker: Worker, lines: list[str], status: int) -> None:
        """Handle a worker that cannot begin, as if it had ended for that reason."""
        del self._requested[worker]
        worker.fault = lines, status
        self._events.worker_ended(worker, status)

    def cancel_requests(self, workers: Iterable[Worker] | None = None) -> None:
        """Cancel the requests for these workers, or all requests. If they are forked, they end at once."""
        for worker in list(self._requested if workers is None else workers):
            if (request := self._requested.pop(worker, None)) is not None:
                request.cancel()

    def export(self, keep: Keep) -> list[Data]:
        """Return the workers as data, for the next program."""
        for worker in list(self.workers.values()):
            worker.peer.receive()  # all of them first: a message of one may affect another
        return [worker.export(keep) for worker in self.workers.values()]

    def resume(self, left: list[Data], generations: Mapping[int, Generation]) -> None:
        """Resume the workers of the previous program."""
        now = self._reactor.clock()
        for data in left:
            worker = Worker.imported(data, generations[data["generation"]], now)
            self.workers[worker.pid] = worker
            self._connect(worker, Channel.imported(data["channel"]))
        for data in left:
            self.workers[data["pid"]].replaces = self.workers.get(data["replaces"])

    def let_start(self, worker: Worker) -> None:
        """Order a prepared worker to start its services."""
        self._send(worker, {"go": True})

    def open(self, worker: Worker) -> None:
        """Order a ready worker to accept clients, or a draining one not to rely on others to serve them."""
        self._send(worker, {"open": True})

    def tell_role(self, worker: Worker, message: Message) -> None:
        """Grant a role to a worker, or revoke it. One that does not get this has ended, or is about to."""
        self._send(worker, message)

    def drain(self, worker: Worker) -> None:
        """Order a worker to stop accepting, and then to stop as with `terminate`.

        Clients in the kernel's queue are left to other workers. The request for a worker is cancelled.
        """
        if not worker.pid:
            self.cancel_requests([worker])
            return
        is_ready = worker.state is WorkerState.READY
        self._events.worker_leaves(worker)
        worker.drain(self._reactor.clock())
        if not (is_ready and self._send(worker, {"drain": True})):
            self._platform.signal(worker.pid, signal.SIGTERM)

    def request(self, what: str, done: Callable[[Reports], object], patience: float) -> None:
        """Request a ``report`` or the ``stacks`` of each worker; call ``done`` with those that arrive.

        It is called after ``patience`` seconds at the latest. A worker that does not serve has no report.
        """
        able = [each for each in self.workers.values() if each.must_answer or what == "stacks"]
        asked = [worker.pid for worker in able if self._send(worker, {what: True})]
        self._reports[what].collect(asked, done, patience)

    def when_shut(self, workers: Iterable[Worker], done: Callable[[], object], patience: float) -> None:
        """Call ``done`` when each of these draining workers has stopped accepting or has ended.

        It is called after ``patience`` seconds at the latest.
        """
        asked = [worker.pid for worker in workers if not worker.peer.channel.closed]
        self._reports["shut"].collect(asked, lambda _: done(), patience)

    def publish(self, event: Message) -> None:
        """Send an event to the subscribed workers: to all, or to one, preferably a serving one.

        A worker that does not read loses events: they must not fill the memory of this process.
        """
        channels = {worker: worker.peer.channel for worker in self.workers.values() if worker.subscribed}
        able = [each for each, to in channels.items() if to.waiting < _EVENTS and not to.closed]
        candidates = [each for each in able if _ONE in each.subscribed]
        chosen = min(candidates, key=_distance, default=None)
        for worker in able:
            if worker is chosen or _ALL in worker.subscribed:
                self._send(worker, {"event": event, "chosen": worker is chosen})

    def terminate(self, worker: Worker) -> None:
        """Order a worker to finish its accepted connections, and to stop: nobody replaces it."""
        if worker.state is WorkerState.DRAINING:
            self.open(worker)
        worker.stop(self._reactor.clock())
        self._platform.signal(worker.pid, signal.SIGTERM)

    def reap(self) -> None:
        """Handle every ended child, including adopted orphans."""
        for pid, code in self._platform.ended():
            worker = self.workers.get(pid)
            if worker is None:
                self.templates.ended(pid, code)
                self._events.child_ended(pid, code)
                self._platform.gone(pid)
            else:
                worker.is_reaped = True
                worker.peer.receive()
                worker.remains = self._platform.gone(pid)
                self._add_metrics(pid)
                del self.workers[pid]
                worker.peer.close()
                self._events.worker_ended(worker, code)

    def _connect(self, worker: Worker, channel: Channel) -> None:
        worker.peer = Peer(
            channel,
            self._reactor,
            partial(self._handle, worker),
            partial(self._kill_for, worker),
            partial(self._closed, worker),
        )

    def _kill_for(self, worker: Worker, error: InvalidMessage) -> None:
        """Kill a worker after an invalid message: other code in that process wrote to the channel."""
        self._platform.log("ERROR", f"worker {worker.pid} sent an invalid message ({error}): killing it")
        if not worker.is_reaped:  # otherwise its pid is free, or that of another process
            self._platform.kill(worker.pid)

    def _closed(self, worker: Worker) -> None:
        for collector in self._reports.values():
            collector.will_not_answer(worker.pid)

    def _handle(self, worker: Worker, message: Message) -> None:
        """Handle a message. Heartbeats need no action, and unknown messages come from a later version."""
        worker.heard = self._reactor.clock()
        match message:
            case {"listen": _}:
                self._send_sockets(worker, message)
            case {"state": _}:
                self._changed(worker, read_text(message, "state"))
            case {"timings": _} | {"fault": _} | {"leaving": _} | {"checks": _} | {"subscribe": _}:
                self._keep(worker, message)
            case {"shut": _}:
                self._reports["shut"].received(worker.pid, message)
            case {"role": _} | {"lease": _}:
                self._events.role_reported(worker, message)
            case {"files": _} if worker.generation.plan.reload:  # otherwise they were not requested
                files = read_object(message, "files")
                written = {file: read_number(files, file, -(2**63), 2**63 - 1) for file in files}
                self._events.files_read(written)
            case {"recycle": _}:
                self._events.worker_should_recycle(worker, read_text(message, "recycle"))
            case {"metrics": _}:
                self._send_table(worker, read_number(message, "number"))
            case {"report": _} | {"stacks": _}:
                what, read = ("report", read_report) if "report" in message else ("stacks", read_stacks)
                self._reports[what].received(worker.pid, read(read_object(message, what)))

    def _keep(self, worker: Worker, message: Message) -> None:
        """Store a worker's report of its start, its end or its services."""
        match message:
            case {"timings": _}:
                worker.timings = read_timings(read_object(message, "timings"))
            case {"fault": _}:
                worker.fault, worker.errno = read_fault(message), read_errno(message)
            case {"checks": _}:
                worker.checks = read_checks(message)
                self._events.worker_checked(worker)
            case {"subscribe": _}:
                worker.subscribed.add(_subscription(message))
            case {"leaving": _}:
                worker.leaving = read_number(message, "leaving", most=_STATUSES)

    def _changed(self, worker: Worker, state: str) -> None:
        if state not in _OWN_STATES:
            raise InvalidMessage(f"state: expected {', '.join(_OWN_STATES)}")
        if not worker.is_leaving:
            worker.enter_state(WorkerState(state), worker.heard)
            self._events.worker_advanced(worker)

    def _send_sockets(self, worker: Worker, message: Message) -> None:
        text, kind = read_text(message, "listen"), read_number(message, "kind")
        index, question = read_number(message, "index", most=_MOST_SERVERS), read_number(message, "number")
        try:
            sockets = self._sockets.get(text, kind, index, worker.generation.number)
        except TamedError as error:
            self._send(worker, {"answer": question, "fault": fault_data(error)})
            return
        except ValueError as error:  # Tamed's workers request valid endpoints only
            raise InvalidMessage(str(error)) from error
        if not self._send(worker, {"answer": question}, [sock.fileno() for sock in sockets]):
            refused = SystemRefused(
                f"cannot hand out the socket of {text}", "the supervisor has no free descriptors", _MORE
            )
            self._send(worker, {"answer": question, "fault": fault_data(refused)})

    def _send_table(self, worker: Worker, question: int) -> None:
        """Send a worker the shared memory for the values of its metrics."""
        descriptors = []
        if self.metrics is not None:
            try:
                descriptors = [self.metrics.page_of(worker.pid, str(worker.number)).descriptor]
            except OSError as error:
                self._platform.log("ERROR", f"no memory for the metrics of worker {worker.pid}: {error}")
        self._send(worker, {"answer": question}, descriptors)

    def _add_metrics(self, pid: int) -> None:
        try:
            if self.metrics is not None:
                self.metrics.ended(pid)
        except OSError as error:
            self._platform.log("ERROR", f"the metrics of worker {pid} are lost: {error}")

    def _send(self, worker: Worker, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send a message; return False if the worker has ended or does not read; others handle that."""
        try:
            worker.peer.send(message, descriptors)
        except OSError:
            return False
        return True


def _distance(worker: Worker) -> tuple[bool, int, int]:
    """Return a sort key for the choice of the worker that gets an event: staying workers come first."""
    return worker.state is not WorkerState.READY, -worker.generation.number, worker.number


def _subscription(message: Message) -> str:
    if (which := read_text(message, "subscribe")) not in (_ONE, _ALL):
        raise InvalidMessage(f"subscribe: expected {_ONE} or {_ALL}")
    return which
