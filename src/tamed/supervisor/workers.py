"""The workers of a supervisor: spawning them, talking with them, and reaping them.

What follows from what they say is decided by who gets the `WorkerEvents`.
"""

import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from tamed.errors import SystemRefused, TamedError
from tamed.ipc.channel import Channel
from tamed.ipc.fault import fault_data
from tamed.ipc.handoff import Data, Keep
from tamed.ipc.message import InvalidMessage, Message, read_fault, read_number, read_object, read_text
from tamed.supervisor.generation import Generation, Worker, WorkerState
from tamed.supervisor.loop import Reactor, deliver
from tamed.supervisor.platform import Platform
from tamed.supervisor.reports import ReportCollector, Reports, read_report
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.templates import Templates

__all__ = ["WorkerEvents", "WorkerPool"]

_MODULE = "tamed.worker"
_OWN_STATES = ("prepared", "starting", "ready")  # that a worker can report of itself
_AT_WORK = (WorkerState.LOADING, WorkerState.STARTING)
_FEWEST_AT_ONCE = 2
_STATUSES = 255
_MOST_SERVERS = 1000  # of one application on one endpoint
_MORE = "let each process have more: --max-files"


class WorkerEvents(Protocol):
    """What a pool reports of its workers, to whoever directs it."""

    def worker_advanced(self, worker: Worker) -> None:
        """Take note that a worker has come to another state on its way to readiness."""

    def worker_shut(self, worker: Worker) -> None:
        """Take note that a worker which drains accepts nobody any more."""

    def worker_ended(self, worker: Worker, code: int) -> None:
        """Take note of the end of a worker, with its exit code, which is negative for a signal."""

    def worker_should_recycle(self, worker: Worker, why: str) -> object:
        """Take note that a worker asks to be replaced; it asks again until it is."""

    def files_read(self, files: dict[str, int]) -> None:
        """Take note of the files that a worker was made from, and of when they were written."""

    def child_ended(self, pid: int, code: int) -> None:
        """Take note of the end of a child that is no worker, with its exit code."""


class WorkerPool:
    """All workers that have not been reaped, by their pid in ``workers``; ``events`` gets what they do."""

    def __init__(
        self, events: WorkerEvents, reactor: Reactor, sockets: SocketTable, platform: Platform
    ) -> None:
        self.workers: dict[int, Worker] = {}
        self.templates = Templates(reactor, platform)
        self._events = events
        self._reports = ReportCollector(reactor)
        self._reactor = reactor
        self._sockets = sockets
        self._platform = platform

    def of(self, generation: Generation) -> list[Worker]:
        """Return the workers of a generation, those on their way out too."""
        return [worker for worker in self.workers.values() if worker.generation is generation]

    def staying(self, generation: Generation) -> list[Worker]:
        """Return the workers of a generation that are not about to leave, nor to replace another."""
        return [each for each in self.of(generation) if not each.is_surplus and each.replaces is None]

    def missing(self, generation: Generation) -> list[int]:
        """Return the numbers of the workers that a generation is to have and has not."""
        numbers = {worker.number for worker in self.staying(generation)}
        return [number for number in range(1, generation.count + 1) if number not in numbers]

    def holder(self, generation: Generation, number: int) -> Worker | None:
        """Return the worker of a number that is to stay, and may be on its way; None if there is none."""
        return next((worker for worker in self.staying(generation) if worker.number == number), None)

    def has_room(self, generation: Generation) -> bool:
        """Tell whether another worker may be started now. Those that wait for others take no time.

        As many come up at once as there are CPUs: more would be ready no sooner, and would leave no time for
        those that serve.
        """
        coming = [each for each in self.of(generation) if each.state in _AT_WORK]
        return len(coming) < max(_FEWEST_AT_ONCE, self._platform.cpus)

    def fill(self, generation: Generation) -> None:
        """Start workers that a generation lacks, as far as there is room.

        To be called again when one of them has come further. Raises OSError if the system has no room.
        """
        for number in self.missing(generation):
            if not self.has_room(generation):
                break
            self.spawn(generation, number)

    def spawn(self, generation: Generation, number: int, replaces: Worker | None = None) -> None:
        """Start a worker. Raises OSError if the system has no room for one."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = self._start(generation, theirs.fileno(), number)
            except BaseException:
                ours.close()
                raise
        now = self._reactor.clock()
        worker = Worker(pid, number, generation, Channel(ours), started=now, heard=now, replaces=replaces)
        self.workers[pid] = worker
        self._reactor.watch(worker.channel, lambda: self._receive(worker))
        self._send(worker, generation.plan.first_order)

    def export(self, keep: Keep) -> list[Data]:
        """Return what the next program needs to go on with the workers."""
        for worker in list(self.workers.values()):
            self._receive(worker)  # all of them first: what one says may concern another
        return [worker.export(keep) for worker in self.workers.values()]

    def resume(self, left: list[Data], generations: Mapping[int, Generation]) -> None:
        """Go on with the workers of the program before."""
        now = self._reactor.clock()
        for data in left:
            worker = Worker.imported(data, generations[data["generation"]], now)
            self.workers[worker.pid] = worker
            if not worker.channel.closed:
                self._reactor.watch(worker.channel, partial(self._receive, worker))
                self._deliver(worker)
        for data in left:
            self.workers[data["pid"]].replace(self.workers.get(data["replaces"]))

    def let_start(self, worker: Worker) -> None:
        """Let a worker that is prepared start its services."""
        self._send(worker, {"go": True})

    def open(self, worker: Worker) -> None:
        """Have a worker that is ready let clients in."""
        self._send(worker, {"open": True})

    def drain(self, worker: Worker) -> None:
        """Have a worker let nobody in any more, and then stop as `terminate` says.

        Those who wait to be let in are left to other workers.
        """
        is_ready = worker.state is WorkerState.READY
        worker.drain()
        if not (is_ready and self._send(worker, {"drain": True})):
            self._platform.signal(worker.pid, signal.SIGTERM)

    def request_reports(self, done: Callable[[Reports], object]) -> None:
        """Ask the workers for their reports; call ``done`` with those of all that answer in time."""
        asked = [pid for pid, worker in self.workers.items() if self._request_report(worker)]
        self._reports.collect(asked, done)

    def _request_report(self, worker: Worker) -> bool:
        return worker.is_to_answer and self._send(worker, {"report": True})

    def terminate(self, worker: Worker) -> None:
        """Let a worker serve to the end what it has accepted, and stop."""
        worker.stop()
        self._platform.signal(worker.pid, signal.SIGTERM)

    def reap(self) -> None:
        """See to every child that has ended; as pid 1 also to orphans that have become ours."""
        for pid, code in self._platform.ended():
            worker = self.workers.get(pid)
            if worker is None:
                self.templates.ended(pid, code)
                self._events.child_ended(pid, code)
                self._platform.gone(pid)
            else:
                self._receive(worker, has_ended=True)
                self._close(worker)
                self._platform.gone(pid)
                del self.workers[pid]
                self._events.worker_ended(worker, code)

    def _start(self, generation: Generation, channel: int, number: int) -> int:
        template = self.templates.of(generation)
        if template is not None:
            return self._platform.fork(channel, template.fork)
        return self._platform.spawn(channel, _MODULE, str(number), plan=generation.plan)

    def _receive(self, worker: Worker, *, has_ended: bool = False) -> None:
        """Handle what a worker has sent, and send what waits: one that takes no more is found out."""
        try:
            for message, _ in worker.channel.receive():
                worker.heard = self._reactor.clock()
                self._handle(worker, message)
            self._deliver(worker)
        except InvalidMessage as error:  # something else in that process has written to the channel
            self._platform.log("ERROR", f"worker {worker.pid} cannot be understood ({error}): it is ended")
            if not has_ended:  # else its number is another's, or nobody's
                self._platform.kill(worker.pid)
            self._close(worker)
        except OSError:
            self._close(worker)
        if worker.channel.closed:
            self._close(worker)

    def _handle(self, worker: Worker, message: Message) -> None:
        """Do what a message is for. What is unknown is of a later version, and passed over."""
        match message:
            case {"heartbeat": _}:
                pass
            case {"listen": _}:
                self._send_sockets(worker, message)
            case {"state": _}:
                self._changed(worker, read_text(message, "state"))
            case {"fault": _}:
                worker.fault = read_fault(message)
            case {"leaving": _}:
                worker.leaving = read_number(message, "leaving", most=_STATUSES)
            case {"shut": _}:
                self._events.worker_shut(worker)
            case {"files": _} if worker.generation.plan.reload:  # else nobody has asked for them
                files = read_object(message, "files")
                written = {file: read_number(files, file, -(2**63), 2**63 - 1) for file in files}
                self._events.files_read(written)
            case {"recycle": _}:
                self._events.worker_should_recycle(worker, read_text(message, "recycle"))
            case {"report": _}:
                self._reports.received(worker.pid, read_report(read_object(message, "report")))

    def _changed(self, worker: Worker, state: str) -> None:
        if state not in _OWN_STATES:
            raise InvalidMessage(f"state: expected {', '.join(_OWN_STATES)}")
        if not worker.is_leaving:
            worker.come_to(WorkerState(state), worker.heard)
            self._events.worker_advanced(worker)

    def _send_sockets(self, worker: Worker, message: Message) -> None:
        text, kind = read_text(message, "listen"), read_number(message, "kind")
        index, question = read_number(message, "index", most=_MOST_SERVERS), read_number(message, "number")
        try:
            sockets = self._sockets.get(text, kind, index, worker.generation.number)
        except TamedError as error:
            self._send(worker, {"answer": question, "fault": fault_data(error)})
            return
        except ValueError as error:  # no worker of ours asks for what is no endpoint
            raise InvalidMessage(str(error)) from error
        if not self._send(worker, {"answer": question}, [sock.fileno() for sock in sockets]):
            refused = SystemRefused(f"cannot hand out the socket of {text}", "no descriptors are left", _MORE)
            self._send(worker, {"answer": question, "fault": fault_data(refused)})

    def _send(self, worker: Worker, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send a message; a worker that is gone, or does not read, is left to those who see to such."""
        try:
            worker.channel.send(message, descriptors)
        except OSError:
            return False
        self._deliver(worker)
        return True

    def _deliver(self, worker: Worker) -> None:
        deliver(worker.channel, self._reactor, lambda: self._close(worker))

    def _close(self, worker: Worker) -> None:
        """Talk with it no more; may be done again."""
        if worker.channel.fileno() >= 0:
            self._reactor.unwatch(worker.channel)
            worker.channel.close()
            self._reports.will_not_answer(worker.pid)
