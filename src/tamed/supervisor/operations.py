"""The operations on a daemon: its start, reloads, upgrades, scaling. One runs, the others wait.

This file owns what runs now and what waits, and nothing else writes it. The caller of an operation is
answered once, with what became of this very request:

- One that asks for what waits already joins it: two reloads that wait are one. What runs has begun, and may
  have read what the later caller has changed since, so nobody joins a reload or an upgrade that runs.
- Scaling is a wish for a state. A later number takes the place of an earlier one, also of one that is on the
  way to it, and the earlier caller is answered.
- The end of the daemon ends all of them.

Nothing here does an operation. ``begin`` is called with the one whose turn it is, and whoever does it calls
`Operations.finish`. What waits is data, which an upgrade hands to the next program.
"""

import enum
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from tamed.errors import ExitStatus
from tamed.ipc.handoff import Data
from tamed.supervisor.control import Answer, Reply

__all__ = ["Kind", "Operation", "Operations", "fault"]


class Kind(enum.Enum):
    """What can be done to a daemon; the value says what is going on meanwhile."""

    START = "the start"
    RELOAD = "a reload"
    UPGRADE = "an upgrade"
    SCALE = "scaling"


class Operation:
    """One of them, with those who wait for its outcome.

    ``workers`` is the number to scale to, None for the number at the moment when it begins, and ``change`` is
    added to it then.
    """

    def __init__(
        self, kind: Kind, answers: Sequence[Answer] = (), workers: int | None = None, change: int = 0
    ) -> None:
        self.kind = kind
        self.answers = list(answers)
        self.workers = workers
        self.change = change

    def join(self, later: "Operation") -> None:
        """Do what a later operation of the same kind asks for, at once with this one."""
        before = self.workers, self.change
        if later.workers is None:
            self.change += later.change
        else:
            self.workers, self.change = later.workers, later.change
        if (self.workers, self.change) != before:
            self.answer(fault("a later request for another number of workers has taken its place"))
        self.answers += later.answers

    def settle_on(self, workers: int) -> None:
        """Be for this number of workers, whatever was added to which."""
        self.workers, self.change = workers, 0

    def answer(self, outcome: dict[str, Any]) -> None:
        """Answer the callers, each once."""
        answers, self.answers = self.answers, []
        for answer in answers:
            answer(outcome)

    def export(self) -> Data:
        """Return this as data, with the descriptors of the connections of those who wait."""
        callers = [each.descriptor for each in self.answers if isinstance(each, Reply)]
        return {
            "kind": self.kind.value,
            "workers": self.workers,
            "change": self.change,
            "callers": [descriptor for descriptor in callers if descriptor >= 0],
        }

    @classmethod
    def imported(cls, data: Data, replies: MutableMapping[int, Reply]) -> "Operation":
        """Return the operation that the data was made from; it takes its own out of ``replies``."""
        answers = [replies.pop(each) for each in data["callers"] if each in replies]
        return cls(Kind(data["kind"]), answers, data["workers"], data["change"])


class Operations:
    """The queue of one daemon, whose start is what runs first.

    ``running`` is the one that runs, None while there is none.
    """

    def __init__(self, begin: Callable[[Operation], None]) -> None:
        self.running: Operation | None = Operation(Kind.START)
        self._waiting: list[Operation] = []
        self._begin = begin

    def submit(self, operation: Operation) -> str | None:
        """Begin an operation, now or in its turn; return what it waits for, None if it waits for nothing."""
        running = self.running
        if running is None:
            self._run(operation)
            return None
        if operation.kind is running.kind is Kind.SCALE:
            running.join(operation)
            self._begin(running)
            return None
        for each in self._waiting:
            if each.kind is operation.kind:
                each.join(operation)
                break
        else:
            self._waiting.append(operation)
        return running.kind.value

    def finish(self, outcome: dict[str, Any]) -> None:
        """Answer for the operation that has run, and begin the next one."""
        finished, self.running = self.running, None
        if finished is not None:
            finished.answer(outcome)
        if self._waiting:
            self._run(self._waiting.pop(0))

    def cancel(self, outcome: dict[str, Any]) -> None:
        """Answer for all, what runs and what waits: none of them will come to its end."""
        cancelled = [*([] if self.running is None else [self.running]), *self._waiting]
        self.running, self._waiting = None, []
        for each in cancelled:
            each.answer(outcome)

    def export(self) -> Data:
        """Return all as data."""
        return {
            "running": None if self.running is None else self.running.export(),
            "waiting": [each.export() for each in self._waiting],
        }

    def resume(self, data: Data, replies: MutableMapping[int, Reply]) -> None:
        """Go on where the program before has stopped, in the middle of the operation that ran.

        The replies that are owed are taken from ``replies``.
        """
        self.running = None if data["running"] is None else Operation.imported(data["running"], replies)
        self._waiting = [Operation.imported(each, replies) for each in data["waiting"]]

    def _run(self, operation: Operation) -> None:
        self.running = operation
        self._begin(operation)


def fault(*lines: str, status: int = ExitStatus.UNAVAILABLE) -> dict[str, Any]:
    """Return the outcome of what has failed: the last line says why, in one sentence."""
    return {"fault": {"lines": [f"tamed: {line}" for line in lines], "status": int(status)}}
