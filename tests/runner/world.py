"""A world for a supervisor that has no processes.

Its clock is set by hand, and the test plays the workers.
"""

import os
import signal
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tamed.errors import TamedError
from tamed.ipc.channel import Channel
from tamed.ipc.message import Message
from tamed.log.plan import LogPlan
from tamed.net.inherit import Inheritance
from tamed.supervisor.generation import Generation, Worker, WorkerState
from tamed.supervisor.loop import Reactor
from tamed.supervisor.plan import Plan
from tamed.supervisor.platform import Remains
from tamed.supervisor.sockets import SocketTable
from tamed.supervisor.status import StateNotifier
from tamed.supervisor.supervisor import Supervisor
from tamed.supervisor.workers import WorkerPool
from tamed.unix.notify import Notifier

STEP = 0.25  # seconds
_MOST_TURNS = 20


class Clock:
    """A clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class HandReactor(Reactor):
    """A reactor on the test's clock, whose loop the test runs step by step."""

    def __init__(self) -> None:
        self.time = Clock()
        super().__init__(self.time)
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True
        super().stop()

    def turn(self, timeout: float | None) -> None:
        """Turn until nothing happens any more: an event may cause others, as in a template."""
        super().turn(timeout)
        for _ in range(_MOST_TURNS):
            if not self._selector.select(0):
                return
            super().turn(0)

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps shorter than any relevant delay."""
        end = self.time.now + seconds
        while self.time.now < end:
            self.time.now = min(end, self.time.now + STEP)
            self.turn(0)


class Hand:
    """The worker's side of its channel, played by the test."""

    def __init__(self, pid: int, number: int, channel: Channel) -> None:
        self.pid = pid
        self.number = number
        self.channel = channel

    def say(self, message: Message) -> None:
        self.channel.send(message)

    def heard(self) -> list[Message]:
        """Return the supervisor's messages since the last call; descriptors are closed."""
        messages = []
        for message, descriptors in self.channel.receive():
            for descriptor in descriptors:
                os.close(descriptor)
            messages.append(message)
        return messages


class FakePlatform:
    """A platform that records the supervisor's calls, and has no processes.

    Its templates fork at once, unless they are ``is_held_up``.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.reactor: Reactor = reactor
        self.templates: list[Hand] = []
        self.killed_templates: list[int] = []
        self.is_held_up = False
        self.has_changed = False  # the files that the templates have loaded
        self.hands: list[Hand] = []
        self.directory = ""
        self._helpers: list[Hand] = []
        self.no_log: TamedError | None = None
        self.logged: list[tuple[str, str]] = []
        self.recorded: list[dict[str, Any]] = []
        self.sent: list[tuple[int, signal.Signals | str]] = []
        self.events: list[Any] = []
        self.notifier: Notifier = FakeNotifier(self.events)
        self.dead: list[tuple[int, int]] = []
        self.read_out: list[int] = []
        self.used: dict[int, int] = {}
        self.no_room: OSError | None = None
        self.no_drop: TamedError | None = None
        self.due: float | None = None
        self.cpus = 16

    def spawn(self, channel: int, module: str, *words: str, plan: Plan | None = None) -> int:
        if self.no_room is not None:
            raise self.no_room
        ours = Channel(socket.socket(fileno=os.dup(channel)), takes_descriptors=True)
        if module == "tamed.worker":
            template = Hand(801 + len(self.templates), 0, ours)
            self.templates.append(template)
            self.reactor.watch(ours, lambda: self._play(template))
            return template.pid
        hand = Hand(901 + len(self._helpers), 0, ours)
        self._helpers.append(hand)
        return hand.pid

    @property
    def helpers(self) -> list[Hand]:
        """The helper processes, the requested ones included."""
        self.reactor.turn(0)
        return self._helpers

    def prepare_fork(self, plan: Plan) -> "FakeFork":
        return FakeFork()

    def _play(self, template: Hand) -> None:
        """Do what a template does, unless it has been ended."""
        with suppress(OSError):
            self._obey(template)
        if template.channel.closed:
            self.release(template)

    def _obey(self, template: Hand) -> None:
        for message, descriptors in template.channel.receive():
            if "fork" not in message:
                template.say({"loaded": True})
            elif self.is_held_up or self.no_room is not None:
                os.close(descriptors[0])
                if self.no_room is not None:
                    template.say({"refused": message["fork"], "errno": self.no_room.errno})
            elif self.has_changed and "module" in message:
                os.close(descriptors[0])
                template.say({"changed": message["fork"]})
            else:
                ours = Channel(socket.socket(fileno=descriptors[0]), takes_descriptors=True)
                if ours.is_cut_off():  # the request was cancelled: a forked process would end at once
                    ours.close()
                    continue
                if "worker" in message:
                    hand = Hand(101 + len(self.hands), message["worker"], ours)
                    self.hands.append(hand)
                else:
                    hand = Hand(901 + len(self._helpers), 0, ours)
                    self._helpers.append(hand)
                template.say({"forked": message["fork"], "pid": hand.pid})

    def release(self, template: Hand) -> None:
        """Close the channel of a template. May be repeated."""
        if template.channel.fileno() >= 0:
            self.reactor.unwatch(template.channel)
            template.channel.close()

    def identify(self, pid: int, worker: int) -> None:
        return

    def ended(self) -> Iterator[tuple[int, int]]:
        while self.dead:
            yield self.dead.pop(0)

    def has_lost_terminal(self) -> bool:
        return False

    def settle(self) -> None:
        return

    def end_all(self, grace: float) -> bool:
        return True

    def gone(self, pid: int) -> Remains:
        self.read_out.append(pid)
        return Remains(["last words"], 1_000_000)

    def signal(self, pid: int, number: signal.Signals) -> None:
        self.sent.append((pid, number))

    def kill(self, pid: int) -> None:
        if pid in (each.pid for each in self.templates):
            self.killed_templates.append(pid)
        else:
            self.sent.append((pid, "kill"))

    def memory(self, pid: int) -> int | None:
        return self.used.get(pid)

    def print_stacks(self, pid: int) -> bool:
        self.sent.append((pid, "stacks"))
        return True

    def printed_stacks(self, pid: int) -> list[str]:
        return [f"the stacks of {pid}"]

    def log(self, level: str, text: str) -> None:
        self.logged.append((level, text))

    def record(self, kind: str, text: str, /, **facts: Any) -> None:
        self.recorded.append({"event": kind, "text": text, **facts})

    def reopen_log(self) -> str:
        self.events.append("reopened")
        return ""

    def drop_privileges(self) -> None:
        self.events.append("dropped")
        if self.no_drop is not None:
            raise self.no_drop

    def report_ready(self, addresses: Iterable[str]) -> None:
        self.events.append(("ready", list(addresses)))

    def report_failed(self, lines: Iterable[str], status: int, errno: int) -> None:
        self.events.append(("failed", list(lines), status))

    def change_log(self, plan: LogPlan) -> None:
        if self.no_log is not None:
            raise self.no_log
        self.events.append(("log", plan))

    def enter(self, directory: str) -> None:
        self.directory = directory


class FakeNotifier(Notifier):
    """A notifier without a manager, which records its calls in ``events``."""

    def __init__(self, events: list[Any]) -> None:
        super().__init__("")
        self._events = events

    def _record(self, event: object) -> bool:
        self._events.append(event)
        return True

    def reloading(self, status: str = "") -> bool:
        return self._record("reloading")

    def ready(self, state: str = "", main_pid: int | None = None) -> bool:
        return self._record(("reloaded", state))

    def status(self, state: str) -> bool:
        return self._record(("status", state))

    def stopping(self, state: str = "") -> bool:
        return self._record(("stopping", state))

    def extend_timeout(self, seconds: float) -> bool:
        return self._record("progress")

    def stuck(self, why: str) -> bool:
        return self._record(("stuck", why))

    def watchdog(self) -> bool:
        return self._record("alive")


class FakeFork:
    """A prepared fork, which has no pipes."""

    theirs: Sequence[int] = ()

    def close_theirs(self) -> None:
        return

    def adopt(self, pid: int) -> None:
        return

    def close(self) -> None:
        return


def a_plan(**changes: Any) -> Plan:
    """Return a plan of two workers, with round times."""
    told: dict[str, Any] = {"workers": 2, "start_timeout": 60.0, "stop_timeout": 40.0, "watchdog": 20.0}
    return Plan(**{"name": "poetry", "job": {"its": "job"}, "interpreter": ["python"], **told, **changes})


class World:
    """Everything that a supervisor needs."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.reactor = HandReactor()
        self.platform = FakePlatform(self.reactor)
        self.events = FakeEvents()
        self.sockets = SocketTable(Inheritance({}, os.getpid()))

    @property
    def generation(self) -> Generation:
        """A generation for workers that a test creates."""
        return Generation(1, self.plan, self.plan.workers)

    @property
    def hands(self) -> list[Hand]:
        """The workers, the requested ones included."""
        self.reactor.turn(0)
        return self.platform.hands

    def says(self, hand: Hand, message: Message) -> None:
        """Let a worker send a message, and the supervisor receive it."""
        hand.say(message)
        self.reactor.turn(0)

    def comes_to(self, state: str, *hands: Hand) -> None:
        for hand in hands:
            self.says(hand, {"state": state})

    def close(self) -> None:
        self.sockets.close()
        for template in self.platform.templates:
            self.platform.release(template)
        self.reactor.close()
        for hand in self.platform.hands + self.platform._helpers:
            hand.channel.close()


class FakeEvents:
    """A receiver of a pool's events that records them."""

    def __init__(self) -> None:
        self.states: list[WorkerState] = []
        self.ends: list[tuple[object, int]] = []
        self.refusals: list[OSError] = []

    def worker_advanced(self, worker: Worker) -> None:
        self.states.append(worker.state)

    def worker_ended(self, worker: Worker, code: int) -> None:
        self.ends.append((worker.fault, code))

    def worker_should_recycle(self, worker: Worker, why: str) -> None:
        return

    def worker_checked(self, worker: Worker) -> None:
        return

    def role_reported(self, worker: Worker, message: Message) -> None:
        return

    def worker_leaves(self, worker: Worker) -> None:
        return

    def files_read(self, files: dict[str, int]) -> None:
        return

    def worker_forked(self, worker: Worker) -> None:
        return

    def worker_refused(self, worker: Worker, error: OSError) -> None:
        self.refusals.append(error)

    def child_ended(self, pid: int, code: int) -> None:
        return


@contextmanager
def a_pool(**changes: Any) -> Iterator[tuple[World, WorkerPool]]:
    """Yield a pool whose events are only recorded."""
    world = World(a_plan(**changes))
    pool = WorkerPool(world.events, world.sockets, world.platform)
    try:
        yield world, pool
    finally:
        pool.cancel_requests()
        pool.templates.end()
        for worker in pool.workers.values():
            worker.peer.channel.close()
        world.close()


class Supervised(World):
    """A supervisor and its world. Nothing has started yet."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(a_plan(**changes))
        self.supervisor = Supervisor(self.plan, self.sockets, self.platform)
        self.notifier = StateNotifier(self.supervisor, self.platform)

    def ends(self, hand: Hand, code: int) -> None:
        """Let a worker end, and the supervisor reap it."""
        hand.channel.close()
        self.platform.dead.append((hand.pid, code))
        self.supervisor.ending.signalled(signal.SIGCHLD)

    def ends_with(self, helper: Hand, answer: Message | None, code: int) -> None:
        """Let a helper end, after its answer if it has one."""
        if answer is not None and helper.channel.fileno() >= 0:
            with suppress(OSError):  # nobody may want to hear it any more
                helper.say(answer)
        self.ends(helper, code)

    def start(self) -> None:
        """Start, up to the moment when the daemon is ready."""
        self.notifier.watch()
        self.supervisor.start()
        for state in ("prepared", "starting", "ready"):
            self.comes_to(state, *self.hands)

    def pass_time(self, seconds: float) -> None:
        """Let time pass while every worker that can sends heartbeats."""
        end = self.reactor.time.now + seconds
        while self.reactor.time.now < end and not self.reactor.stopped:
            for pid in list(self.supervisor.pool.workers):
                hand = next(each for each in self.platform.hands if each.pid == pid)
                if hand.channel.fileno() >= 0:
                    hand.say({"heartbeat": True})
            self.reactor.advance(STEP)

    def close(self) -> None:
        self.supervisor.ending.stop()
        self.platform.dead += [(helper.pid, -signal.SIGKILL) for helper in self.platform.helpers]
        self.supervisor.ending.signalled(signal.SIGCHLD)
        for worker in self.supervisor.pool.workers.values():
            worker.peer.channel.close()
        super().close()


@contextmanager
def supervised(**changes: Any) -> Iterator[Supervised]:
    """Yield a supervisor in its own world."""
    world = Supervised(**changes)
    try:
        yield world
    finally:
        world.close()
