"""Requests for the stacks of all workers, at once, without stopping anything.

The event loop of a worker answers. A worker that does not answer within a second is blocked, or loads its
application: it gets a signal, at which `faulthandler` prints the stacks of its threads, and what it prints is
read for a moment. That is in the log, too.
"""

from typing import Any

from tamed.ipc.message import Message
from tamed.supervisor.control import Answer
from tamed.supervisor.generation import Worker
from tamed.supervisor.loop import Reactor
from tamed.supervisor.platform import Platform
from tamed.supervisor.reports import Reports
from tamed.supervisor.workers import WorkerPool

__all__ = ["StackRequests"]

_PRINTING = 0.8  # seconds in which a process has printed its stacks, and they have been read


class StackRequests:
    """Serves requests for stacks."""

    def __init__(self, pool: WorkerPool, reactor: Reactor, platform: Platform) -> None:
        self._pool = pool
        self._reactor = reactor
        self._platform = platform

    def serve(self, answer: Answer) -> None:
        """Answer when all workers have answered, or have printed their stacks."""
        self._pool.request_stacks(lambda found: self._complete(found, answer))

    def _complete(self, found: Reports, answer: Answer) -> None:
        silent = [pid for pid in self._pool.workers if pid not in found and self._platform.print_stacks(pid)]
        if silent:
            self._reactor.later(_PRINTING, lambda: self._finish(found, silent, answer))
        else:
            self._finish(found, silent, answer)

    def _finish(self, found: Reports, silent: list[int], answer: Answer) -> None:
        printed = {pid: self._platform.printed_stacks(pid) for pid in silent}
        workers = [
            _described(worker, found.get(worker.pid), printed.get(worker.pid, []))
            for worker in self._pool.workers.values()
        ]
        answer({"stacks": workers})


def _described(worker: Worker, stacks: Message | None, printed: list[str]) -> dict[str, Any]:
    described = {**worker.facts(), "state": worker.state.value, "answered": stacks is not None}
    return {
        **described,
        **(stacks or {"threads": [], "tasks": [], "hooks": [], "count": 0}),
        "printed": printed,
    }
