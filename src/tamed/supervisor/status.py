"""The status of the daemon, for who asks for it, and for the service manager, which is notified."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from tamed._os.proc import usage_of
from tamed.errors import ExitStatus
from tamed.ipc.message import Message
from tamed.log.layout import rfc3339
from tamed.supervisor.generation import Worker
from tamed.supervisor.loop import Reactor
from tamed.supervisor.operations import Answer
from tamed.supervisor.platform import Platform
from tamed.supervisor.records import EventLog
from tamed.supervisor.reports import Reports
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.supervisor import Phase, Supervisor
from tamed.supervisor.workers import WorkerPool

__all__ = ["StateNotifier", "StatusRequests", "answer_with_stacks"]

_RECENT = 10  # events in a status
_EXTENSION = 15.0  # seconds: much more than between two looks
_PATIENCE = 5.0  # seconds for the workers to send their reports
_STACKS = 1.0  # seconds for a worker to send its stacks
_PRINTING = 0.8  # seconds in which a process has printed its stacks, and they have been read


class StatusRequests:
    """Collects the reports of the workers into a status.

    ``begun`` is the start of the daemon, by the reactor's clock, unchanged by upgrades. A worker that does
    not answer in time is shown without its report. ``of_operations`` are the certificates that the operations
    process reported.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        reactor: Reactor,
        sockets: SocketTable,
        events: EventLog,
        begun: float,
    ) -> None:
        self._supervisor = supervisor
        self._reactor = reactor
        self._sockets = sockets
        self._events = events
        self.begun = begun
        self.of_operations: list[Message] = []

    def serve(self, answer: Answer, patience: float = _PATIENCE) -> None:
        """Answer when the workers have reported, or when ``patience``, in seconds, is over."""
        self._supervisor.pool.request("report", lambda reports: answer(self._status(reports)), patience)

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
            "certificates": _certificates(self._reported(reports)),
            "ready": supervisor.ready,
            "wanted": supervisor.generation.count,
            "restarts": recovery.restarts,
            "checks": [each._asdict() for each in supervisor.checks.summaries()],
            "last_error": recovery.last_error,
            "last_error_at": None if recovery.failed_at is None else rfc3339(recovery.failed_at),
            "roles": supervisor.roles.status(),
            "log": supervisor.plan.log.path,
            "events_file": self._events.path,
            "events": list(self._events.recent)[-_RECENT:],
            "workers": [
                {
                    **self._worker(worker),
                    **{key: each for key, each in reports.get(pid, {}).items() if key != "certificates"},
                }
                for pid, worker in supervisor.pool.workers.items()
            ],
        }

    def _reported(self, reports: Reports) -> Iterator[Message]:
        """Yield the certificates of the serving generation and of the operations process."""
        for pid, worker in self._supervisor.pool.workers.items():
            if worker.generation is self._supervisor.generation:
                yield from reports.get(pid, {}).get("certificates", ())
        yield from self.of_operations

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


def _certificates(reported: Iterable[Message]) -> list[dict[str, Any]]:
    """Return the certificates, of each the one that expires first, with RFC 3339 times."""
    found: dict[tuple[str, str], float | None] = {}
    for certificate in reported:
        key, ends = (certificate["endpoint"], certificate["file"]), certificate["ends"]
        before = found.get(key)
        found[key] = ends if before is None or (ends is not None and ends < before) else before
    return [
        {"endpoint": endpoint, "file": file, "ends": None if ends is None else rfc3339(ends)}
        for (endpoint, file), ends in found.items()
    ]


def answer_with_stacks(answer: Answer, pool: WorkerPool, platform: Platform) -> None:
    """Answer with the stacks of all workers, without stopping anything, when they have sent or printed them.

    The event loop of a worker answers. A worker that does not answer within a second is blocked, or loads its
    application: it gets a signal, at which `faulthandler` prints the stacks of its threads. Its output is
    read for a moment; it is in the log, too.
    """

    def complete(found: Reports) -> None:
        silent = [pid for pid in pool.workers if pid not in found and platform.print_stacks(pid)]
        if silent:
            platform.reactor.later(_PRINTING, lambda: finish(found, silent))
        else:
            finish(found, silent)

    def finish(found: Reports, silent: list[int]) -> None:
        printed = {pid: platform.printed_stacks(pid) for pid in silent}
        workers = pool.workers.values()
        described = [_described(each, found.get(each.pid), printed.get(each.pid, [])) for each in workers]
        answer({"stacks": described})

    pool.request("stacks", complete, _STACKS)


def _described(worker: Worker, stacks: Message | None, printed: list[str]) -> dict[str, Any]:
    described = {**worker.facts(), "state": worker.state.value, "answered": stacks is not None}
    return {
        **described,
        **(stacks or {"threads": [], "tasks": [], "hooks": [], "count": 0}),
        "printed": printed,
    }


class StateNotifier:
    """Notifies the service manager of the daemon's state and progress, and pings its watchdog.

    The manager's watchdog guards the supervisor. A worker that does not answer is replaced by the daemon's
    own watchdog, and is no reason to end the others.
    """

    def __init__(self, supervisor: Supervisor, platform: Platform) -> None:
        self._supervisor = supervisor
        self._reactor = platform.reactor
        self._notifier = platform.notifier
        self._last = ""
        self._is_stuck = False

    def watch(self) -> None:
        """From now on, notify the manager at its interval."""
        if self._notifier.alive_interval is not None:
            self._reactor.later(self._notifier.alive_interval, self.watch)
            self._notifier.watchdog()

    def look(self) -> None:
        """Notify of a changed state, and of progress. Must be called regularly."""
        supervisor = self._supervisor
        text = supervisor.progress
        if text:
            self._notifier.extend_timeout(_EXTENSION)
        elif supervisor.phase is Phase.RUNNING:
            text = self._of_running()
        if text != self._last and supervisor.ending.status == ExitStatus.OK:  # the reason for a failure stays
            was, self._last = self._last, text
            if text:
                self._notifier.status(text)
            elif was.startswith(("degraded", "failing")):
                self._notifier.status(f"running: {supervisor.ready} workers ready")

    def _of_running(self) -> str:
        """Return the current problems; empty if there are none: the last notification then stays."""
        supervisor = self._supervisor
        if supervisor.state == "running":
            return ""
        text = f"{supervisor.state}: {supervisor.ready} of {supervisor.generation.count} workers ready"
        if error := supervisor.recovery.last_error:
            text += f"; last error: {error}"
        for name, *_, why in supervisor.checks.failing:
            text += f"; the check of {name} fails: {why}"
        if supervisor.is_stuck and not self._is_stuck:
            self._is_stuck = True
            self._notifier.stuck(text)
        return text
