"""The channel between the supervisor and a worker."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tamed.ipc.channel import Channel
from tamed.ipc.message import LONGEST, InvalidMessage


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """Two ends of a channel."""
    ours, theirs = (Channel(end, takes_descriptors=True) for end in socket.socketpair())
    with closing(ours), closing(theirs):
        yield ours, theirs


def test_messages_arrive_in_order(pair: tuple[Channel, Channel]) -> None:
    """Messages sent one after the other are received as they were, in that order."""
    ours, theirs = pair
    ours.send({"go": True})
    ours.send({"tell": 1, "text": "a line\nand another"})
    assert list(theirs.receive()) == [({"go": True}, []), ({"tell": 1, "text": "a line\nand another"}, [])]
    assert not theirs.closed


def test_what_is_received_is_for_no_program(pair: tuple[Channel, Channel], tmp_path: Path) -> None:
    """A received descriptor has close-on-exec set from the start, whatever the sender's flags were."""
    ours, theirs = pair
    sent = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(sent, True)
    ours.send({"a": "folder"}, [sent])
    os.close(sent)
    ((_, (descriptor,)),) = theirs.receive()
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_descriptors_come_with_their_message(pair: tuple[Channel, Channel], tmp_path: Path) -> None:
    """A descriptor that is sent with a message names the same open file at the other end."""
    ours, theirs = pair
    first, second = tmp_path / "first", tmp_path / "second"
    ours.send({"nothing": True})
    for path in (first, second):
        with path.open("wb") as file:
            ours.send({"path": str(path)}, [file.fileno()])
    received = list(theirs.receive())
    assert [message for message, _ in received] == [
        {"nothing": True},
        {"path": str(first)},
        {"path": str(second)},
    ]
    for message, descriptors in received[1:]:
        (descriptor,) = descriptors
        assert os.path.samestat(os.fstat(descriptor), Path(message["path"]).stat())
        os.close(descriptor)


def test_a_message_may_arrive_in_pieces(pair: tuple[Channel, Channel]) -> None:
    """An incomplete message is kept until it is complete."""
    ours, theirs = pair
    raw = ours._sock
    raw.send(b'{"prep')
    assert list(theirs.receive()) == []
    raw.send(b'ared": true}\n')
    assert list(theirs.receive()) == [({"prepared": True}, [])]


def test_the_end_of_the_other_side_is_noticed(pair: tuple[Channel, Channel]) -> None:
    """Messages that were sent before the other end closed are received; then the channel is closed."""
    ours, theirs = pair
    ours.send({"ready": True})
    ours.close()
    assert list(theirs.receive()) == [({"ready": True}, [])]
    assert theirs.closed


def test_a_peer_that_does_not_read_is_an_error(pair: tuple[Channel, Channel]) -> None:
    """Sending never blocks: it raises an error when the queue for the peer is full."""
    ours, _ = pair

    def talk_on() -> None:
        for _ in range(100_000):
            ours.send({"text": "x" * 1000})

    with pytest.raises(OSError, match="does not read"):
        talk_on()


def test_what_waited_is_sent_when_the_peer_reads(pair: tuple[Channel, Channel]) -> None:
    """Data that the socket's buffer did not accept arrives complete and in order after a flush."""
    ours, theirs = pair
    for number in range(500):
        ours.send({"number": number, "text": "x" * 1000})
    assert not ours.flush()
    received: list[object] = []
    while len(received) < 500:
        received += [message["number"] for message, _ in theirs.receive()]
        ours.flush()
    assert received == list(range(500))


def test_descriptors_nobody_took_are_closed(pair: tuple[Channel, Channel]) -> None:
    """Closing a channel closes the descriptors of messages that were never received by the caller."""
    ours, theirs = pair
    reading, writing = os.pipe()
    socket.send_fds(ours._sock, [b'{"cut off'], [writing])
    os.close(writing)
    assert list(theirs.receive()) == []
    theirs.close()
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_descriptors_are_dropped_where_none_are_asked_for() -> None:
    """A process cannot fill the descriptor table of a peer that takes no descriptors."""
    ours, theirs = map(Channel, socket.socketpair())
    reading, writing = os.pipe()
    with closing(ours), closing(theirs):
        ours.send({"take": "this"}, [writing])
        os.close(writing)
        with pytest.raises(InvalidMessage, match="its descriptors are missing"):
            list(theirs.receive())
        assert os.read(reading, 1) == b""
    os.close(reading)


def test_a_peer_that_never_stops_talking_is_left_in_time(pair: tuple[Channel, Channel]) -> None:
    """Messages beyond the limit of one call are yielded by the next call."""
    ours, theirs = pair
    ours._sock.setblocking(True)
    line = b'{"text": "%s"}\n' % (b"x" * 5000)  # short ones take long to be read

    def talk() -> None:
        with suppress(OSError):
            while True:
                ours._sock.sendall(line * 100)

    talker = threading.Thread(target=talk)
    talker.start()
    turns = 0
    while turns < 3:
        turns += bool(list(theirs.receive()))
    theirs.close()
    talker.join()


def test_a_message_without_an_end_is_none(pair: tuple[Channel, Channel]) -> None:
    """The channel refuses it before it fills the memory."""
    ours, theirs = pair
    ours._sock.setblocking(True)

    def talk() -> None:
        with suppress(OSError):
            while True:
                ours._sock.send(b"x" * 65536)

    talker = threading.Thread(target=talk)
    talker.start()
    with pytest.raises(InvalidMessage, match="without an end"):
        _receive_for_ever(theirs)
    theirs.close()
    talker.join()


def _receive_for_ever(channel: Channel) -> None:
    while True:
        list(channel.receive())


def test_a_message_that_would_not_be_read_is_not_sent(pair: tuple[Channel, Channel]) -> None:
    """The sender gets an error, and the channel still works."""
    ours, theirs = pair
    with pytest.raises(OSError, match="a message of"):
        ours.send({"text": "x" * LONGEST})
    ours.send({"text": "x"})
    assert list(theirs.receive()) == [({"text": "x"}, [])]


def test_copies_of_descriptors_are_closed_if_there_is_no_room_for_all(pair: tuple[Channel, Channel]) -> None:
    """A message that cannot be sent with its descriptors leaves no copies open."""
    ours, theirs = pair
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="Bad file descriptor"):
        ours.send({"take": "these"}, [0, 1 << 30])
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert list(theirs.receive()) == []
