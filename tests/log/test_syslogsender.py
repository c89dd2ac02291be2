"""Sending to syslog."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed.log.syslog import SyslogMessage, SyslogSender, leads_to_journal
from tests.log.logfile_child import Clock
from tests.patience import PATIENCE


def message(text: str) -> SyslogMessage:
    """Make a message with this text."""
    return SyslogMessage(6, 1_700_000_000.0, "verse", "123", text)


def text_of(data: bytes) -> str:
    """Return the text of a message, without its header."""
    return data.decode().partition(" - - ")[2]


@pytest.fixture
def clock() -> Clock:
    """Return a clock that goes when it is told to."""
    return Clock()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[socket.socket]:
    """Return a socket that listens where a syslog daemon of this machine would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.settimeout(PATIENCE)
        yield listening


def sender_to(path: Path, clock: Clock) -> SyslogSender:
    """Make a sender to a socket file."""
    return SyslogSender(path, host="host", clock=clock, monotonic=clock)


def test_local_datagrams(local: socket.socket, tmp_path: Path, clock: Clock) -> None:
    """Each message is a datagram to the local socket, with all its lines."""
    sender = sender_to(tmp_path / "log", clock)
    sender.send(message("one\ntwo"))
    assert local.recv(9999) == b"<30>1 2023-11-14T22:13:20.000000Z host verse 123 - - one\ntwo"
    assert not sender.waiting
    sender.close()
    sender.close()


def test_daemon_that_is_not_there_yet(tmp_path: Path, clock: Clock) -> None:
    """Until a daemon listens messages wait; they are sent in order once it does, at most a second later."""
    sender = sender_to(tmp_path / "log", clock)
    sender.send(message("one"))
    sender.send(message("two"))
    assert sender.waiting
    assert f"cannot send the log to the syslog daemon at {tmp_path / 'log'}: " in sender.trouble
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.settimeout(PATIENCE)
        sender.housekeep()
        assert sender.waiting
        clock.now += 1
        sender.housekeep()
        assert not sender.waiting
        assert sender.trouble == ""
        assert [text_of(listening.recv(9999)) for _ in range(2)] == ["one", "two"]
    assert sender.lost == 0
    sender.close()


def test_daemon_that_is_restarted(tmp_path: Path, clock: Clock) -> None:
    """A daemon that comes back with a new socket gets what came in the meantime."""
    path = tmp_path / "log"
    sender = sender_to(path, clock)
    for turn in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(str(path))
            listening.settimeout(PATIENCE)
            clock.now += 1
            sender.housekeep()
            if turn:
                assert text_of(listening.recv(9999)) == "meanwhile"
            sender.send(message("hello"))
            assert text_of(listening.recv(9999)) == "hello"
        path.unlink()
        sender.send(message("meanwhile"))
    sender.close()


def test_slow_daemon(local: socket.socket, tmp_path: Path, clock: Clock) -> None:
    """A daemon that does not read blocks no writer: messages wait or are dropped, and the gap is reported."""
    sender = sender_to(tmp_path / "log", clock)
    total = 500
    for number in range(total):
        sender.send(message(f"{number} " + "x" * 8000))
    assert sender.waiting
    assert sender.lost > 0
    lost = sender.lost
    received: list[str] = []
    while sender.waiting:
        received.append(text_of(local.recv(9999)))
        sender.housekeep()
    local.setblocking(False)
    try:
        while True:
            received.append(text_of(local.recv(9999)))
    except BlockingIOError:
        pass
    said = received.pop()
    assert re.match(rf"{lost} lines were lost between .*: the log did not accept them", said)
    assert [int(text.split()[0]) for text in received] == list(range(total - lost))
    sender.close()


def test_datagram_that_is_too_long_for_the_socket(local: socket.socket, tmp_path: Path, clock: Clock) -> None:
    """A message that the socket refuses as too long is cut until it goes."""
    sender = sender_to(tmp_path / "log", clock)
    sender.send(message("x"))
    connected = sender._channel._socket
    assert connected is not None
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
    sender.send(message("y" * 7000))
    local.recv(9999)
    text = text_of(local.recv(9999))
    assert text.endswith("y [...]")
    assert 1000 < len(text) < 5000
    sender.close()


class StreamReceiver:
    """A syslog daemon that listens for a stream."""

    def __init__(self, path: Path) -> None:
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.settimeout(PATIENCE)
        self.listening.bind(str(path))
        self.listening.listen()
        self.connected: socket.socket | None = None
        self._read = b""

    def accept(self) -> None:
        """Take the sender's connection, and leave the one before."""
        if self.connected is not None:
            self.connected.close()
        self.connected = self.listening.accept()[0]
        self.connected.settimeout(PATIENCE)
        self._read = b""

    def read(self) -> str:
        """Read one message, which ends in a zero byte."""
        assert self.connected is not None
        while b"\0" not in self._read:
            self._read += self.connected.recv(9999)
        data, _, self._read = self._read.partition(b"\0")
        return text_of(data)

    def close(self) -> None:
        """Close all."""
        self.listening.close()
        if self.connected is not None:
            self.connected.close()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[StreamReceiver]:
    """Return a syslog daemon that listens for a stream."""
    receiver = StreamReceiver(tmp_path / "log")
    yield receiver
    receiver.close()


def test_stream_that_breaks(receiver: StreamReceiver, tmp_path: Path, clock: Clock) -> None:
    """When the other end has closed it is seen before the next message, which goes to the new connection."""
    sender = sender_to(tmp_path / "log", clock)
    sender.send(message("one"))
    receiver.accept()
    assert receiver.read() == "one"
    assert receiver.connected is not None
    receiver.connected.close()
    sender.send(message("two"))
    assert sender.waiting
    clock.now += 1
    sender.housekeep()
    receiver.accept()
    assert receiver.read() == "two"
    assert not sender.waiting
    assert sender.lost == 0
    sender.close()


def test_stream_that_is_slow(receiver: StreamReceiver, tmp_path: Path, clock: Clock) -> None:
    """A receiver that does not read blocks no writer; the messages it gets are whole."""
    sender = sender_to(tmp_path / "log", clock)
    sender.send(message("first"))
    receiver.accept()
    count = 1
    while sender.lost == 0:
        sender.send(message(f"{count} " + "x" * 8000))
        count += 1
    kept = count - 1 - sender.lost
    assert receiver.read() == "first"
    for number in range(1, kept + 1):
        sender.housekeep()
        assert int(receiver.read().split()[0]) == number
    while sender.waiting:
        sender.housekeep()
    assert " lost between " in receiver.read()
    sender.close()


def test_a_forked_child_has_a_stream_of_its_own(
    receiver: StreamReceiver, tmp_path: Path, clock: Clock
) -> None:
    """Data that the parent has begun to send is not mixed with the child's."""
    sender = sender_to(tmp_path / "log", clock)
    sender.send(message("of the parent"))
    receiver.accept()
    assert receiver.read() == "of the parent"
    sender.disown()
    clock.now += 1
    sender.send(message("of the child"))
    receiver.accept()
    assert receiver.read() == "of the child"
    sender.close()


def test_local_stream(tmp_path: Path, clock: Clock) -> None:
    """A local socket that takes streams is sent a stream, each message ended as the C library ends it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.listen()
        sender = sender_to(tmp_path / "log", clock)
        sender.send(message("one\ntwo\0"))
        sender.send(message("three"))
        with listening.accept()[0] as connected:
            sender.close()
            with connected.makefile("rb") as stream:
                first, second, end = stream.read().split(b"\0")
    assert (text_of(first), text_of(second), end) == ("one\ntwo", "three", b"")


def test_journal_in_the_daemon_s_place(local: socket.socket, tmp_path: Path, clock: Clock) -> None:
    """A socket file that is a link into the journal's directory is the journal's."""
    journal = tmp_path / "journal"
    journal.mkdir()
    (tmp_path / "dev-log").symlink_to(journal / "dev-log")
    assert leads_to_journal(tmp_path / "dev-log", journal)
    assert not leads_to_journal(tmp_path / "log", journal)
    sender = sender_to(tmp_path / "log", clock)
    sender._is_classical = True
    sender.send(message("one"))
    assert re.fullmatch(rb"<30>Nov 1\d \d\d:\d\d:\d\d verse\[123\]: one", local.recv(9999))
    sender.close()
