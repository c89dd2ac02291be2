"""Which workers get an event."""

from collections.abc import Iterator

import pytest

from tests.runner.world import Hand, Supervised, supervised

EVENT = {"event": "death", "text": "worker 7 was ended by SIGKILL"}


@pytest.fixture
def world() -> Iterator[Supervised]:
    """A supervisor of two workers, started."""
    with supervised() as made:
        made.start()
        yield made


def got(hand: Hand) -> list[bool]:
    """Return, for each event that a worker has got, whether it was chosen."""
    return [each["chosen"] for each in hand.heard() if "event" in each]


def test_workers_without_a_subscription_get_no_events(world: Supervised) -> None:
    """One that has subscribed gets each, and is the one that reports it."""
    first, second = world.hands
    world.says(second, {"subscribe": "one"})
    world.supervisor.pool.publish(EVENT)
    assert (got(first), got(second)) == ([], [True])


def test_worker_that_leaves_is_not_chosen(world: Supervised) -> None:
    """One that serves is, if there is one; those that want all events get them in any case."""
    first, second = world.hands
    for hand in (first, second):
        world.says(hand, {"subscribe": "one"})
    world.says(second, {"subscribe": "all"})
    world.supervisor.pool.publish(EVENT)
    assert (got(first), got(second)) == ([True], [False])
    world.supervisor.pool.drain(world.supervisor.pool.workers[first.pid])
    world.supervisor.pool.publish(EVENT)
    assert (got(first), got(second)) == ([], [True])


def test_worker_that_does_not_read_loses_events(world: Supervised) -> None:
    """The queue for a worker is bounded; when it is full, another worker is chosen."""
    first, second = world.hands
    for hand in (first, second):
        world.says(hand, {"subscribe": "one"})
    long = {**EVENT, "text": "x" * 30_000}
    count = 0
    while not got(second):
        world.supervisor.pool.publish(long)
        count += 1
    channel = world.supervisor.pool.workers[first.pid].peer.channel
    assert count > 30
    assert channel.waiting < 1024 * 1024 + 31_000
    assert len(got(first)) > 0


def test_subscription_to_something_else_ends_the_worker(world: Supervised) -> None:
    """No worker of ours sends it."""
    world.says(world.hands[0], {"subscribe": "some"})
    assert world.platform.sent == [(101, "kill")]
