"""The process of the operations endpoint, in a world without processes: the test plays it."""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tamed.errors import Unavailable
from tamed.ipc.message import InvalidMessage, Message
from tamed.supervisor.ops import OpsAnswer, OpsProcess
from tests.runner.world import Hand, World, a_plan


class Stage:
    """A process of the endpoint, and what it has asked."""

    def __init__(self, world: World, **changes: Any) -> None:
        self.world = world
        self.is_starting = False
        self.asked: list[Message] = []
        self.process = OpsProcess(
            a_plan(ops="127.0.0.1:0", **changes),
            world.platform,
            world.sockets,
            serve=self._serve,
            is_starting=lambda: self.is_starting,
        )

    def _serve(self, question: Message, answer: OpsAnswer) -> None:
        if question["ask"] == "nonsense":
            raise InvalidMessage("ask: nonsense")
        self.asked.append(question)
        answer({"health": "good"})

    def close(self) -> None:
        """Let the process end, and no other one be started."""
        self.world.sockets.close()
        for hand in self.hands:
            self.process.ended(hand.pid, 0)

    @property
    def hands(self) -> list[Hand]:
        """The processes that were started, played by the test."""
        return self.world.platform.helpers

    @property
    def errors(self) -> list[str]:
        """What was logged."""
        return [text for _, text in self.world.platform.logged]


@pytest.fixture
def world() -> Iterator[World]:
    """Make a world."""
    world = World(a_plan())
    yield world
    world.close()


@pytest.fixture
def idle(world: World) -> Iterator[Stage]:
    """Make a stage on which nothing has started."""
    stage = Stage(world)
    yield stage
    stage.close()


@pytest.fixture
def stage(idle: Stage) -> Stage:
    """Start a process, which has got its order."""
    stage = idle
    stage.process.bind()
    stage.process.start()
    assert stage.hands[0].heard() == [
        {
            "endpoint": "127.0.0.1:0",
            "agent": "",
            "hosts": [],
            "layout": "plain",
            "heartbeat": pytest.approx(5.0, abs=5),
        }
    ]
    return stage


def test_questions_are_answered(stage: Stage) -> None:
    """An answer has the number of its question."""
    stage.world.says(stage.hands[0], {"ask": "health", "number": 3})
    assert stage.asked == [{"ask": "health", "number": 3}]
    assert stage.hands[0].heard() == [{"health": "good", "answer": 3}]


def test_it_gets_the_sockets_of_its_endpoint_only(stage: Stage) -> None:
    """Which are bound already; a request for another endpoint ends it."""
    (hand,) = stage.hands
    stage.world.says(hand, {"listen": "127.0.0.1:0", "number": 1})
    ((message, descriptors),) = hand.channel.receive()
    assert message == {"answer": 1}
    with socket.socket(fileno=descriptors[0]) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    stage.world.says(hand, {"listen": "127.0.0.1:1", "number": 2})
    assert stage.world.platform.sent == [(hand.pid, "kill")]
    stage.process.ended(hand.pid, -9)
    (error,) = stage.errors
    assert error.startswith(
        f"operations process {hand.pid}: sent an invalid message (listen: another endpoint)"
    )
    assert error.endswith(" and was killed; restarting it in 0.1 s")


def test_what_cannot_be_bound_any_more_is_answered(idle: Stage) -> None:
    """The endpoint cannot be bound when the daemon stops."""
    stage = idle
    stage.process.start()
    stage.world.sockets.close()
    stage.world.says(stage.hands[0], {"listen": "127.0.0.1:0", "number": 1})
    answer = stage.hands[0].heard()[-1]
    assert answer["fault"]["kind"] == Unavailable.__name__
    stage.process.ended(stage.hands[0].pid, 0)
    assert stage.errors == []  # and it is not started again


def test_one_that_asks_nonsense_is_killed(stage: Stage) -> None:
    """Another one takes its place."""
    stage.world.says(stage.hands[0], {"ask": "nonsense", "number": 1})
    assert stage.world.platform.sent == [(stage.hands[0].pid, "kill")]


def test_one_that_is_not_heard_from_is_killed(stage: Stage) -> None:
    """The ops process is killed after the watchdog's time; any message resets it."""
    stage.world.reactor.advance(15.0)
    stage.world.says(stage.hands[0], {"ask": "health", "number": 1})
    stage.world.reactor.advance(15.0)
    assert stage.world.platform.sent == []
    stage.world.reactor.advance(30.0)
    assert stage.world.platform.sent[0] == (stage.hands[0].pid, 9)
    stage.process.ended(stage.hands[0].pid, -9)
    assert "did not answer and was killed" in stage.errors[-1]


def test_it_is_started_again_with_waits_that_grow(stage: Stage) -> None:
    """Until one has served for a while; its own reason is logged."""
    for number, wait in enumerate((0.1, 0.2, 0.4, 0.8)):
        hand = stage.hands[number]
        stage.world.says(hand, {"fault": {"lines": ["tamed: no poem"], "status": 70}})
        stage.process.ended(hand.pid, 70)
        found = re.fullmatch(
            rf"operations process {hand.pid}: no poem; restarting it in (\d\.\d) s", stage.errors[-1]
        )
        assert found is not None
        assert float(found[1]) == pytest.approx(wait, rel=0.3)
        stage.world.reactor.advance(1.5)
        assert len(stage.hands) == number + 2
    stage.world.reactor.advance(15.0)
    stage.process.ended(stage.hands[-1].pid, 1)
    assert stage.errors[-1].endswith("ended with status 1; restarting it in 0.1 s")
    stage.process.ended(12345, 0)  # of somebody else
    assert len(stage.errors) == 5


def test_a_start_that_fails_is_tried_again(idle: Stage) -> None:
    """When the system has a process to give."""
    stage, world = idle, idle.world
    world.platform.no_room = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    stage.process.start()
    assert stage.errors == [f"cannot start the operations process: {world.platform.no_room}"]
    world.platform.no_room = None
    world.reactor.advance(1.0)
    assert len(stage.hands) == 1


def test_it_does_not_start_while_the_supervisor_is_root_for_the_workers(world: World) -> None:
    """With prepare-as-root, it starts only when the daemon is ready."""
    stage = Stage(world, prepare_as_root=True)
    stage.is_starting = True
    stage.process.start()
    world.reactor.advance(2.0)
    assert stage.hands == []
    stage.is_starting = False
    world.reactor.advance(1.0)
    assert len(stage.hands) == 1
    stage.close()


def test_the_next_program_goes_on_with_it(stage: Stage, world: World) -> None:
    """It keeps its channel and sockets across an upgrade; if it does not run then, one is started."""
    (hand,) = stage.hands
    left = stage.process.export(os.dup)
    stage.close()  # as the exec does
    with closing(World(a_plan())) as next_world, closing(Stage(next_world)) as following:
        following.process.resume(left)
        next_world.says(hand, {"ask": "health", "number": 7})
        assert hand.heard() == [{"upgrading": False}, {"health": "good", "answer": 7}]
        following.process.ended(hand.pid, 0)
    with closing(World(a_plan())) as next_world, closing(Stage(next_world)) as following:
        following.process.resume({"channel": None, "sockets": []})
        assert len(following.hands) == 1


def test_it_finishes_its_answers_when_the_daemon_ends(stage: Stage) -> None:
    """It is asked to end, once; then it is not started again, and what its end was like is no fault."""
    (hand,) = stage.hands
    assert not stage.process.end(10.0)
    assert not stage.process.end(9.0)
    assert hand.heard() == [{"drain": True}]
    stage.process.ended(hand.pid, 1)
    assert stage.process.end(8.0)
    stage.world.reactor.advance(60.0)
    assert (stage.hands, stage.errors) == ([hand], [])


def test_it_is_killed_if_it_does_not_end(stage: Stage) -> None:
    """It is killed after a few seconds; a stop of the daemon does not wait for it alone."""
    (hand,) = stage.hands
    assert not stage.process.end(10.0)
    stage.world.reactor.advance(5.0)
    assert stage.world.platform.sent == [(hand.pid, "kill")]
    assert stage.process.end(0.0)
