"""Sending to syslog."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed.errors import Unavailable
from tamed.log.syslog import SyslogAddress, SyslogMessage, SyslogSender, leads_to_journal
from tests.daemon.logfile_child import Clock
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
    return SyslogSender(SyslogAddress("unix", str(path)), host="host", clock=clock, monotonic=clock)


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
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.settimeout(PATIENCE)
        sender.housekeep()
        assert sender.waiting
        clock.now += 1
        sender.housekeep()
        assert not sender.waiting
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
    """A daemon that does not read makes nobody wait: messages wait or are dropped, and the gap is told."""
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
    assert re.match(rf"{lost} lines were lost between .*: the log did not take them", said)
    assert [int(text.split()[0]) for text in received] == list(range(total - lost))
    sender.close()


def test_datagram_that_is_too_long_for_the_socket(local: socket.socket, tmp_path: Path, clock: Clock) -> None:
    """A message that the socket refuses as too long is cut until it goes."""
    sender = sender_to(tmp_path / "log", clock)
    sender.send(message("x"))
    connector = sender._channel._connector  # type: ignore[attr-defined]
    connector._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
    sender.send(message("y" * 7000))
    local.recv(9999)
    text = text_of(local.recv(9999))
    assert text.endswith("y [...]")
    assert 1000 < len(text) < 5000
    sender.close()


def test_udp(clock: Clock) -> None:
    """Over UDP each message is a datagram; while nobody listens on this machine, messages wait."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(PATIENCE)
        address = SyslogAddress("udp", "127.0.0.1", listening.getsockname()[1])
        sender = SyslogSender(address, clock=clock, monotonic=clock)
        sender.send(message("one"))
        data = listening.recv(9999)
        assert text_of(data) == "one"
        assert f" {socket.gethostname()} ".encode() in data
    sender.close()


class TcpReceiver:
    """A syslog daemon that listens on a TCP port."""

    def __init__(self, port: int = 0) -> None:
        self.listening = socket.create_server(("127.0.0.1", port))
        self.listening.settimeout(PATIENCE)
        self.port: int = self.listening.getsockname()[1]
        self.connected: socket.socket | None = None

    def accept(self) -> None:
        self.connected = self.listening.accept()[0]
        self.connected.settimeout(PATIENCE)

    def read(self) -> str:
        """Read one frame of RFC 6587, section 3.4.1."""
        assert self.connected is not None
        length = b""
        while not length.endswith(b" "):
            length += self.connected.recv(1)
        data = b""
        while len(data) < int(length):
            data += self.connected.recv(int(length) - len(data))
        return text_of(data)

    def close(self) -> None:
        self.listening.close()
        if self.connected is not None:
            self.connected.close()


@pytest.fixture
def tcp() -> Iterator[TcpReceiver]:
    """Return a syslog daemon on TCP."""
    receiver = TcpReceiver()
    yield receiver
    receiver.close()


def tcp_sender(receiver: TcpReceiver, clock: Clock) -> SyslogSender:
    """Make a sender to a daemon on TCP."""
    return SyslogSender(SyslogAddress("tcp", "127.0.0.1", receiver.port), clock=clock, monotonic=clock)


def send_all(sender: SyslogSender, receiver: TcpReceiver, count: int) -> list[str]:
    """Let a sender send what waits while the receiver reads so many messages."""
    received = []
    for _ in range(count):
        sender.housekeep()
        received.append(receiver.read())
    return received


def test_tcp_frames_have_their_length(tcp: TcpReceiver, clock: Clock) -> None:
    """Over TCP messages of many lines are kept apart by their lengths."""
    sender = tcp_sender(tcp, clock)
    texts = ["one\ntwo", "", "😀\n"]
    for text in texts:
        sender.send(message(text))
    tcp.accept()
    while sender.waiting:
        sender.housekeep()
    assert [tcp.read() for _ in texts] == texts
    sender.close()


def test_tcp_that_breaks(tcp: TcpReceiver, clock: Clock) -> None:
    """When the other end has closed it is seen before the next message, which goes to the new connection."""
    sender = tcp_sender(tcp, clock)
    sender.send(message("one"))
    tcp.accept()
    while sender.waiting:
        sender.housekeep()
    assert tcp.read() == "one"
    assert tcp.connected is not None
    tcp.connected.close()
    sender.send(message("two"))
    assert sender.waiting
    clock.now += 1
    sender.housekeep()
    tcp.accept()
    while sender.waiting:
        sender.housekeep()
    assert tcp.read() == "two"
    assert sender.lost == 0
    sender.close()


def test_tcp_that_is_slow(tcp: TcpReceiver, clock: Clock) -> None:
    """A receiver that does not read makes nobody wait, and gets whole what there was room for."""
    sender = tcp_sender(tcp, clock)
    sender.send(message("first"))
    tcp.accept()
    while sender.waiting:
        sender.housekeep()
    count = 1
    while sender.lost == 0:
        sender.send(message(f"{count} " + "x" * 8000))
        count += 1
    kept = count - 1 - sender.lost
    assert tcp.read() == "first"
    received = send_all(sender, tcp, kept)
    assert [int(text.split()[0]) for text in received] == list(range(1, kept + 1))
    while sender.waiting:
        sender.housekeep()
    assert " lost between " in tcp.read()
    sender.close()


def test_tcp_without_anybody(clock: Clock) -> None:
    """Where nobody listens the sender tries once a second, and sends what waited when somebody does."""
    receiver = TcpReceiver()
    receiver.close()
    sender = tcp_sender(receiver, clock)
    sender.send(message("one"))
    for _ in range(3):
        sender.housekeep()
        clock.now += 1
    assert sender.waiting
    again = TcpReceiver(receiver.port)
    while not again.connected:
        clock.now += 1
        sender.housekeep()
        again.listening.settimeout(0.01)
        try:
            again.accept()
        except TimeoutError:
            continue
    while sender.waiting:
        sender.housekeep()
    assert again.read() == "one"
    again.close()
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


def test_name_that_does_not_resolve() -> None:
    """A host without an address is told when the sender is made."""
    with pytest.raises(Unavailable, match=r"syslog at tcp://no-such-host\.invalid:514"):
        SyslogSender(SyslogAddress("tcp", "no-such-host.invalid", 514))


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
