"""What the supervisor tells an administrator who asks how it stands."""

import os
from typing import Any

from tamed._os.proc import usage_of
from tamed.ipc.message import Message, read_number, read_text
from tamed.log.layout import rfc3339
from tamed.supervisor.control import Answer, Reply
from tamed.supervisor.generation import Worker
from tamed.supervisor.loop import Reactor
from tamed.supervisor.reports import Reports
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.supervisor import Supervisor

__all__ = ["ControlApi", "StatusRequests"]


class StatusRequests:
    """Asks the workers, and sums up. ``begun`` is when the supervisor did, by the reactor's clock.

    A worker that does not answer in time is shown without its report.
    """

    def __init__(self, supervisor: Supervisor, reactor: Reactor, sockets: SocketTable) -> None:
        self._supervisor = supervisor
        self._reactor = reactor
        self._sockets = sockets
        self.begun = reactor.clock()

    def serve(self, answer: Answer) -> None:
        """Answer, once the workers have reported."""
        self._supervisor.pool.request_reports(lambda reports: answer(self._status(reports)))

    def _status(self, reports: Reports) -> dict[str, Any]:
        supervisor, recovery = self._supervisor, self._supervisor.recovery
        return {
            "name": supervisor.plan.name,
            "state": supervisor.state,
            "pid": os.getpid(),
            "uptime": self._reactor.clock() - self.begun,
            "generation": supervisor.generation.number,
            "reloading": supervisor.is_reloading,
            "endpoints": self._sockets.addresses(supervisor.generation.number),
            "ready": supervisor.ready,
            "wanted": supervisor.generation.count,
            "restarts": recovery.restarts,
            "last_error": recovery.last_error,
            "last_error_at": None if recovery.failed_at is None else rfc3339(recovery.failed_at),
            "log": supervisor.plan.log.path,
            "workers": [
                {**self._worker(worker), **reports.get(pid, {})}
                for pid, worker in supervisor.pool.workers.items()
            ],
        }

    def _worker(self, worker: Worker) -> dict[str, Any]:
        memory, cpu = usage_of(worker.pid)
        return {
            "pid": worker.pid,
            "number": worker.number,
            "generation": worker.generation.number,
            "state": worker.state.value,
            "uptime": self._reactor.clock() - worker.started,
            "memory": memory,
            "cpu": cpu,
        }


_SHOWN = 60  # characters


class ControlApi:
    """Serves requests. Each is answered once, with what came of it."""

    def __init__(self, supervisor: Supervisor, status: StatusRequests) -> None:
        self._supervisor = supervisor
        self._status = status

    def serve(self, request: Message, answer: Answer) -> None:
        """Answer a request, now or later; whoever waits for its turn is told for what, if it wants to know.

        Raises InvalidMessage for what is none.
        """
        waits_for = None
        match read_text(request, "command"):
            case "status":
                self._status.serve(answer)
            case "reopen":
                answer(self._supervisor.reopen())
            case "reload":
                waits_for = self._supervisor.reload([answer])
            case "upgrade":
                waits_for = self._supervisor.upgrade([answer])
            case "scale":
                count = read_number(request, "workers", -(2**31))
                waits_for = self._supervisor.scale(count, [answer], yes=request.get("yes") is True)
            case other:
                answer({"error": f"unknown command {other[:_SHOWN]!r}"})
        if waits_for is not None and request.get("progress") is True and isinstance(answer, Reply):
            answer.progress(waits_for)
