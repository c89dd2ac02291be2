"""Delivering messages that are larger than what a socket holds."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tamed.ipc.channel import Channel
from tamed.supervisor.loop import Reactor, deliver


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """A reactor on the real clock."""
    with closing(Reactor()) as made:
        yield made


def test_a_long_message_arrives_although_the_other_end_never_says_a_word(reactor: Reactor) -> None:
    """It is sent piece by piece, as the other end reads."""
    ours, theirs = map(Channel, socket.socketpair())
    with closing(ours), closing(theirs):
        reactor.watch(ours, lambda: None)
        message = {"job": "x" * 3_000_000}
        ours.send(message)
        deliver(ours, reactor, reactor.stop)
        received: list[object] = []
        while not received:
            received += [got for got, _ in theirs.receive()]
            reactor.turn(0)
        assert received == [message]
        reactor.unwatch(ours)


def test_a_channel_whose_other_end_is_gone_is_left_alone(reactor: Reactor) -> None:
    """The sender is notified once; nothing is sent through a closed channel."""
    lost: list[bool] = []
    ours, theirs = map(Channel, socket.socketpair())
    with closing(ours):
        reactor.watch(ours, lambda: None)
        ours.send({"job": "x" * 3_000_000})
        deliver(ours, reactor, lambda: lost.append(True))
        theirs.close()
        reactor.turn(0)
        reactor.turn(0)
        reactor.unwatch(ours)
        ours.close()
        deliver(ours, reactor, lambda: lost.append(True))
    assert lost == [True]
