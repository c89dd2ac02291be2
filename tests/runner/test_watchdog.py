"""Looking after workers, on a clock that is set by hand."""

import signal
from collections.abc import Iterator

import pytest

from tamed.supervisor.generation import WorkerState
from tamed.supervisor.watchdog import Watchdog
from tamed.supervisor.workers import Crew
from tests.runner.world import World, a_crew

_Made = tuple[World, Crew, Watchdog]


@pytest.fixture
def made() -> Iterator[_Made]:
    """A watchdog of one worker, with 20 seconds for an answer and 60 to become ready."""
    with a_crew() as (world, crew):
        crew.hire(world.generation, 1)
        watchdog = Watchdog(world.plan.heartbeat_interval, crew.workers, world.reactor, world.station)
        watchdog.watch()
        yield world, crew, watchdog


def test_a_silent_worker_is_put_down(made: _Made) -> None:
    """First it writes its stacks, then it is ended; it is told of once."""
    world, crew, watchdog = made
    world.comes_to("ready", world.hands[0])
    world.reactor.advance(20)
    assert world.station.sent == []
    assert watchdog.is_content
    world.reactor.advance(5)
    assert world.station.sent == [(101, signal.SIGABRT)]
    assert not watchdog.is_content
    assert crew.workers[101].state is WorkerState.STUCK
    world.reactor.advance(10)
    assert world.station.sent == [(101, signal.SIGABRT), (101, "kill")]
    said = "worker 101 has not answered for 20 s: its stacks follow, and it is ended"
    assert world.station.log == [("ERROR", said)]


def test_one_that_sends_heartbeats_is_left_alone(made: _Made) -> None:
    """For as long as it does."""
    world, _, watchdog = made
    world.comes_to("ready", world.hands[0])
    for _ in range(20):
        world.reactor.advance(5)
        world.says(world.hands[0], {"heartbeat": True})
    assert world.station.sent == []
    assert watchdog.is_content


def test_one_that_loads_may_be_silent(made: _Made) -> None:
    """Importing blocks the loop; but for no longer than a start may take."""
    world, _, _ = made
    world.reactor.advance(60)
    assert world.station.sent == []
    world.reactor.advance(5)
    assert world.station.sent == [(101, signal.SIGABRT)]
    assert world.station.log[0][1].startswith("worker 101 was not ready after 60 s")


def test_one_that_stops_must_answer_too(made: _Made) -> None:
    """Draining is no reason for a blocked loop."""
    world, crew, _ = made
    crew.dismiss(crew.workers[101])
    world.reactor.advance(25)
    assert world.station.sent == [(101, signal.SIGTERM), (101, signal.SIGABRT)]


def test_one_that_is_gone_in_time_is_not_killed(made: _Made) -> None:
    """Its pid may be somebody else's by then."""
    world, crew, watchdog = made
    watchdog.put_down(crew.workers[101])
    world.station.dead = [(101, -signal.SIGABRT)]
    crew.reap()
    world.reactor.advance(5)
    assert world.station.sent == [(101, signal.SIGABRT)]


def test_a_supervisor_that_was_held_up_blames_nobody(made: _Made) -> None:
    """After it was stopped itself, what the workers have said meanwhile is read before it judges them."""
    world, _, _ = made
    world.comes_to("ready", world.hands[0])
    world.reactor.advance(5)
    world.hands[0].say({"heartbeat": True})
    world.reactor.time.now += 600
    world.reactor._call_what_is_due()  # before it has read anything
    world.reactor.turn(0)
    world.reactor.advance(5)
    assert world.station.sent == []
