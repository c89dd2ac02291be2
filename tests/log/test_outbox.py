"""What waits to be sent."""

from tamed.log.outbox import Outbox


class Receiver:
    """Takes as many messages as it has room for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[bytes] = []

    def take(self, message: bytes) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.taken.append(message)
        return True


def note(sentence: str) -> bytes:
    """Make a message of a sentence, without its times."""
    return sentence.partition(" between ")[0].encode()


def test_messages_go_at_once() -> None:
    """While the receiver takes them, nothing waits."""
    receiver = Receiver(9)
    outbox = Outbox(receiver.take, note)
    assert outbox.put(b"1")
    assert outbox.put(b"2")
    assert receiver.taken == [b"1", b"2"]
    assert outbox.is_empty


def test_order_is_kept() -> None:
    """Messages queued while the receiver was busy are sent before later ones."""
    receiver = Receiver(1)
    outbox = Outbox(receiver.take, note)
    assert [outbox.put(message) for message in (b"1", b"2", b"3")] == [True, False, False]
    assert receiver.taken == [b"1"]
    assert not outbox.is_empty
    receiver.room = 1
    assert not outbox.flush()
    assert receiver.taken == [b"1", b"2"]
    receiver.room = 9
    outbox.put(b"4")
    assert receiver.taken == [b"1", b"2", b"3", b"4"]
    assert outbox.is_empty
    assert outbox.lost == 0


def test_the_newest_are_dropped_and_reported_where_they_are_missing() -> None:
    """Beyond its limit the outbox drops what comes, counts it, and tells it behind what had waited."""
    receiver = Receiver(0)
    outbox = Outbox(receiver.take, note, limit=20)
    for number in range(5):
        outbox.put(b"message %d" % number)  # 9 bytes
    outbox.put(b"x")  # would fit, but would stand before those that are missing
    assert outbox.lost == 4
    receiver.room = 2
    outbox.flush()
    assert not outbox.is_empty
    receiver.room = 9
    outbox.put(b"new")
    assert receiver.taken == [b"message 0", b"message 1", b"4 lines were lost", b"new"]
    assert outbox.is_empty
    assert outbox.lost == 4


def test_counting_begins_anew() -> None:
    """A second gap is reported separately; the total continues."""
    receiver = Receiver(0)
    outbox = Outbox(receiver.take, note, limit=0)
    outbox.put(b"1")
    receiver.room = 1
    outbox.flush()
    outbox.put(b"2")
    receiver.room = 1
    outbox.flush()
    assert receiver.taken == [b"1 line was lost", b"1 line was lost"]
    assert outbox.lost == 2
