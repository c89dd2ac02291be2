"""Delivering messages that are larger than what a socket holds."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tamed.ipc.channel import Channel
from tamed.supervisor.loop import Peer, Reactor


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """A reactor on the real clock."""
    with closing(Reactor()) as made:
        yield made


def test_a_long_message_arrives_although_the_other_end_never_says_a_word(reactor: Reactor) -> None:
    """It is sent piece by piece, as the other end reads."""
    ours, theirs = map(Channel, socket.socketpair())
    peer = Peer(ours, reactor, lambda _: None)
    with closing(peer), closing(theirs):
        message = {"job": "x" * 3_000_000}
        peer.send(message)
        received: list[object] = []
        while not received:
            received += [got for got, _ in theirs.receive()]
            reactor.turn(0)
        assert received == [message]


def test_a_channel_whose_other_end_is_gone_is_closed_once(reactor: Reactor) -> None:
    """The owner is notified once."""
    lost: list[bool] = []
    ours, theirs = map(Channel, socket.socketpair())
    peer = Peer(ours, reactor, lambda _: None, closed=lambda: lost.append(True))
    peer.send({"job": "x" * 3_000_000})
    theirs.close()
    reactor.turn(0)
    reactor.turn(0)
    peer.close()
    assert ours.closed
    assert lost == [True]
