"""The watchdog, on a clock that the test sets."""

import signal
from collections.abc import Iterator

import pytest

from tamed.supervisor.generation import WorkerState
from tamed.supervisor.watchdog import Watchdog
from tamed.supervisor.workers import WorkerPool
from tests.runner.world import World, a_pool

_Made = tuple[World, WorkerPool, Watchdog]


@pytest.fixture
def made() -> Iterator[_Made]:
    """A watchdog of one worker, with 20 seconds for an answer and 60 to become ready."""
    with a_pool() as (world, pool):
        pool.spawn(world.generation, 1)
        world.reactor.turn(0)
        watchdog = Watchdog(lambda: world.plan.heartbeat_interval, pool.workers, world.platform)
        watchdog.watch()
        yield world, pool, watchdog


def test_a_silent_worker_is_aborted(made: _Made) -> None:
    """It writes its stacks and is then ended; this is logged once."""
    world, pool, watchdog = made
    world.comes_to("ready", world.hands[0])
    world.reactor.advance(20)
    assert world.platform.sent == []
    world.reactor.advance(5)
    assert world.platform.sent == [(101, signal.SIGABRT)]
    assert pool.workers[101].state is WorkerState.STUCK
    world.reactor.advance(10)
    assert world.platform.sent == [(101, signal.SIGABRT), (101, "kill")]
    assert not watchdog.cannot_kill
    world.reactor.advance(10)
    assert watchdog.cannot_kill
    said = "worker 101 has not answered for 20 s: its stacks follow, then it is killed"
    assert world.platform.logged == [("ERROR", said)]


def test_one_that_sends_heartbeats_is_left_alone(made: _Made) -> None:
    """A worker that sends heartbeats is never aborted."""
    world, _, _ = made
    world.comes_to("ready", world.hands[0])
    for _ in range(20):
        world.reactor.advance(5)
        world.says(world.hands[0], {"heartbeat": True})
    assert world.platform.sent == []


def test_one_that_loads_may_be_silent(made: _Made) -> None:
    """Importing blocks the loop, so only the start timeout applies."""
    world, _, _ = made
    world.reactor.advance(60)
    assert world.platform.sent == []
    world.reactor.advance(5)
    assert world.platform.sent == [(101, signal.SIGABRT)]
    assert world.platform.logged[0][1].startswith("worker 101 was not ready after 60 s")


def test_one_that_stops_must_answer_too(made: _Made) -> None:
    """A draining worker must answer, too."""
    world, pool, _ = made
    pool.terminate(pool.workers[101])
    world.reactor.advance(25)
    assert world.platform.sent == [(101, signal.SIGTERM), (101, signal.SIGABRT)]


def test_one_that_is_gone_in_time_is_not_killed(made: _Made) -> None:
    """Its pid may be that of another process by then."""
    world, pool, watchdog = made
    watchdog.abort(pool.workers[101])
    world.platform.dead = [(101, -signal.SIGABRT)]
    pool.reap()
    world.reactor.advance(5)
    assert world.platform.sent == [(101, signal.SIGABRT)]


def test_a_supervisor_that_was_held_up_blames_nobody(made: _Made) -> None:
    """After the supervisor was suspended, it reads the workers' messages before it checks them."""
    world, _, _ = made
    world.comes_to("ready", world.hands[0])
    world.reactor.advance(5)
    world.hands[0].say({"heartbeat": True})
    world.reactor.time.now += 600
    world.reactor._call_due()  # before it has read anything
    world.reactor.turn(0)
    world.reactor.advance(5)
    assert world.platform.sent == []
