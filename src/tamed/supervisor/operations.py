"""The operations on a daemon: its start, reloads, upgrades, scaling. One runs, the others wait in a queue.

This file owns the running operation and the queue, and nothing else writes them. The caller of an operation
gets one answer, with the outcome of its request:

- A request joins a waiting operation of its kind: two waiting reloads become one. A request never joins a
  running reload or upgrade, which may have read the files before the caller changed them.
- Scaling requests a state. A later number replaces an earlier one, also that of running scaling, and the
  earlier caller gets an answer.
- The end of the daemon cancels all operations.

This file does not execute operations. It calls ``begin`` with the next one, and the code that executes it
calls `Operations.finish`. While the daemon stops, it refuses all. The queue is data, which an upgrade hands
to the next program.
"""

import contextlib
import enum
import socket
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from itertools import pairwise
from typing import Any

from tamed._os.limits import most_workers
from tamed._os.unix_sockets import peer_credentials
from tamed.errors import ExitStatus
from tamed.ipc.handoff import Data
from tamed.ipc.message import Message, encode_message
from tamed.supervisor.loop import Timer
from tamed.supervisor.platform import Platform

__all__ = ["Answer", "History", "Kind", "Operation", "Operations", "Reply", "fault"]

Answer = Callable[[Message], None]


class Reply:
    """Answers one client, now or later: there is no time limit once ``has_asked`` is true.

    ``received`` is its request, or the part of it that has come until ``deadline``. ``send`` sends it an
    answer and closes the connection.
    """

    def __init__(
        self,
        send: "Callable[[Reply, Message], None]",
        client: socket.socket,
        deadline: Timer,
        received: bytes,
    ) -> None:
        self.socket = client
        self.deadline = deadline
        self.received = received
        self.has_asked = False
        self._send = send

    def fileno(self) -> int:
        """Return the descriptor of the client's connection, negative if it is closed."""
        return self.socket.fileno()

    @property
    def asked(self) -> str:
        """The peer's uid and pid, for events."""
        try:
            client = peer_credentials(self.socket)
        except OSError:
            return ""
        return f"uid {client.uid}, pid {client.pid}"

    def __call__(self, answer: Message) -> None:
        """Answer, and close the connection."""
        self._send(self, answer)

    def progress(self, text: str) -> None:
        """Send the client the name of the operation that its request waits for."""
        with contextlib.suppress(OSError):  # the client does not read, or has disconnected
            self.socket.send(encode_message({"waiting": text}))


class Kind(enum.Enum):
    """The kinds of operations; the value is the name of the operation in messages."""

    START = "the start"
    RELOAD = "a reload"
    UPGRADE = "an upgrade"
    SCALE = "scaling"


class Operation:
    """One operation, with the callers that wait for its outcome.

    ``workers`` is the number to scale to, None for the number when the operation begins. ``change`` is added
    to it. ``asked`` is the origin of the request: a signal, or the process of a command.
    """

    def __init__(
        self,
        kind: Kind,
        answers: Sequence[Answer] = (),
        workers: int | None = None,
        change: int = 0,
        asked: str = "",
    ) -> None:
        self.kind = kind
        self.asked = asked
        self.answers = list(answers)
        self.workers = workers
        self.change = change

    def join(self, later: "Operation") -> None:
        """Merge a later operation of the same kind into this one."""
        before = self.workers, self.change
        if later.workers is None:
            self.change += later.change
        else:
            self.workers, self.change = later.workers, later.change
        if (self.workers, self.change) != before:
            self.answer(fault("a later request for another number of workers has replaced it"))
        self.answers += later.answers

    def set_workers(self, workers: int) -> None:
        """Set the final number of workers, with the change included."""
        self.workers, self.change = workers, 0

    def answer(self, outcome: dict[str, Any]) -> None:
        """Send the outcome to each caller, once."""
        answers, self.answers = self.answers, []
        for answer in answers:
            answer(outcome)

    def export(self) -> Data:
        """Return this as data, with the descriptors of the callers' connections."""
        callers = [each.fileno() for each in self.answers if isinstance(each, Reply)]
        return {
            "kind": self.kind.value,
            "workers": self.workers,
            "change": self.change,
            "asked": self.asked,
            "callers": [descriptor for descriptor in callers if descriptor >= 0],
        }

    @classmethod
    def imported(cls, data: Data, replies: MutableMapping[int, Reply]) -> "Operation":
        """Return the operation that the data was made from; it takes its replies out of ``replies``."""
        answers = [replies.pop(each) for each in data["callers"] if each in replies]
        return cls(Kind(data["kind"]), answers, data["workers"], data["change"], data["asked"])


class History:
    """The history of one operation, for its event: other ``facts``, when it ``began``, and its stages."""

    def __init__(self, platform: Platform, kind: str, **facts: Any) -> None:
        self.facts = facts
        self.began = platform.reactor.clock()
        self._kind = kind
        self._platform = platform
        self._entered: list[tuple[str, float]] = []

    def enter(self, stage: str) -> None:
        """Note the beginning of a stage, and the end of the one before."""
        self._entered.append((stage, self._platform.reactor.clock()))

    def record(self, text: str, **facts: Any) -> None:
        """Record the end of the operation, with the durations of all of it and of each stage."""
        now = self._platform.reactor.clock()
        entered = pairwise([*self._entered, ("", now)])
        stages = {stage: round(end - began, 3) for (stage, began), (_, end) in entered}
        times = {"took": round(now - self.began, 3), "stages": stages or None}
        self._platform.record(self._kind, text, **{**self.facts, **facts, **times})


class Operations:
    """The queue of one daemon; its start is the first running operation.

    ``begin`` has what begins an operation of each kind. ``refusal`` returns the reason why the daemon takes
    no more, or an empty text. ``running`` is the running operation, None if there is none.

    A request returns the name of the operation that it waits for, None if it began or was refused. A refused
    one is logged and answered.
    """

    def __init__(
        self,
        platform: Platform,
        begin: Mapping[Kind, Callable[[Operation], object]],
        refusal: Callable[[], str],
    ) -> None:
        self.running: Operation | None = Operation(Kind.START)
        self._waiting: list[Operation] = []
        self._begin = begin
        self._refusal = refusal
        self._platform = platform

    def reload(self, answers: Sequence[Answer] = (), *, asked: str = "") -> str | None:
        """Replace this generation of workers with a new one; see `Rollout`."""
        return self.submit(Operation(Kind.RELOAD, answers, asked=asked))

    def upgrade(self, answers: Sequence[Answer] = (), *, asked: str = "") -> str | None:
        """Replace this program with a new one, and then reload.

        The answers are called when all of it has succeeded, by the new program, or when it has failed.
        """
        return self.submit(Operation(Kind.UPGRADE, answers, asked=asked))

    def scale(
        self, count: int, answers: Sequence[Answer] = (), *, yes: bool = False, asked: str = ""
    ) -> str | None:
        """Scale to this number of workers; ``yes`` confirms a very large number.

        The answers are called when so many are ready.
        """
        operation = Operation(Kind.SCALE, answers, workers=count, asked=asked)
        most = most_workers(self._platform.cpus, yes=yes)
        if 1 <= count <= most:
            return self.submit(operation)
        limit = f"at most {most} workers" + ("" if yes else ", or more with --yes")
        why = "at least one worker is needed" if count < 1 else limit
        self._refuse(operation, f"cannot scale: {why}", ExitStatus.USAGE)
        return None

    def submit(self, operation: Operation) -> str | None:
        """Begin an operation now, or queue it."""
        if why := self._refusal():
            self._refuse(operation, why, ExitStatus.UNAVAILABLE)
            return None
        running = self.running
        if running is None:
            self._run(operation)
            return None
        if operation.kind is running.kind is Kind.SCALE:
            running.join(operation)
            self._run(running)
            return None
        for each in self._waiting:
            if each.kind is operation.kind:
                each.join(operation)
                break
        else:
            self._waiting.append(operation)
        return running.kind.value

    def finish(self, outcome: dict[str, Any]) -> None:
        """Answer the callers of the running operation, and begin the next one."""
        finished, self.running = self.running, None
        if finished is not None:
            finished.answer(outcome)
        if self._waiting:
            self._run(self._waiting.pop(0))

    def cancel(self, outcome: dict[str, Any]) -> None:
        """Cancel all operations, the running one and those in the queue, and answer their callers."""
        cancelled = [*([] if self.running is None else [self.running]), *self._waiting]
        self.running, self._waiting = None, []
        for each in cancelled:
            each.answer(outcome)

    def export(self) -> Data:
        """Return the running operation and the queue as data."""
        return {
            "running": None if self.running is None else self.running.export(),
            "waiting": [each.export() for each in self._waiting],
        }

    def resume(self, data: Data, replies: MutableMapping[int, Reply]) -> None:
        """Resume from the state of the previous program, in the middle of the running operation.

        The operations take the replies to their callers out of ``replies``.
        """
        self.running = None if data["running"] is None else Operation.imported(data["running"], replies)
        self._waiting = [Operation.imported(each, replies) for each in data["waiting"]]

    def _run(self, operation: Operation) -> None:
        self.running = operation
        self._begin[operation.kind](operation)

    def _refuse(self, operation: Operation, why: str, status: int) -> None:
        self._platform.log("WARNING", why)
        operation.answer(fault(why, status=status))


def fault(*lines: str, status: int = ExitStatus.UNAVAILABLE) -> dict[str, Any]:
    """Return the outcome of a failed operation; the last line states the reason in one sentence."""
    return {"fault": {"lines": [f"tamed: {line}" for line in lines], "status": int(status)}}
