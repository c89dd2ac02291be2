"""The load generator counts what it claims to count, told by a server that fails as it is asked to."""

import errno
import itertools
import os
import shutil
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.load import Load, Result
from tests.patience import PATIENCE

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

POEM = b"Where, like a pillow on a bed,\n" * 100
LOCAL = "127.0.0.1"

Answer = Callable[[socket.socket], None]


def send_all(client: socket.socket) -> None:
    """Send the poem."""
    client.sendall(POEM)


def send_part(client: socket.socket) -> None:
    """Send the beginning."""
    client.sendall(POEM[:100])


def send_nothing(client: socket.socket) -> None:
    """Close at once."""


def send_another(client: socket.socket) -> None:
    """Send something that is as long as the poem."""
    client.sendall(b"?" + POEM[1:])


def send_more(client: socket.socket) -> None:
    """Send the poem, and the beginning of the next."""
    client.sendall(POEM + b"A pregnant bank")


def reset(client: socket.socket) -> None:
    """Close with a reset: there is no time to linger for (socket(7))."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_halfway(client: socket.socket) -> None:
    """Send the beginning, and close with a reset."""
    send_part(client)
    reset(client)


@contextmanager
def listening(listener: socket.socket) -> Iterator[socket.socket]:
    """Listen, until the block is left; whoever waits in accept then hears of it by an error."""
    with listener:
        listener.listen(128)
        try:
            yield listener
        finally:
            listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(*answers: Answer, path: Path | None = None) -> Iterator[tuple[str, int] | Path]:
    """Answer each connection by the next of these functions, over and over; yield where."""

    def serve() -> None:
        for answer in itertools.cycle(answers):
            try:
                client, _ = listener.accept()
            except OSError as error:
                assert error.errno in {errno.EINVAL, errno.EBADF}  # noqa: PT017  it has been shut down
                return
            with client:
                answer(client)

    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as listener:
        listener.bind(str(path) if path else (LOCAL, 0))
        thread = threading.Thread(target=serve)
        with listening(listener):
            thread.start()
            yield path or listener.getsockname()
        thread.join()


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    """Return a file with the poem."""
    path = tmp_path / "poem.txt"
    path.write_bytes(POEM)
    return path


def counts(result: Result) -> dict[str, int]:
    """Return what was counted, without what was not seen at all."""
    names = ("ok", "refused", "reset", "short", "wrong", "timeouts", "errors", "unfinished")
    return {name: count for name in names if (count := getattr(result, name))}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (send_all, "ok"),
        (send_part, "short"),
        (send_nothing, "short"),
        (send_another, "wrong"),
        (send_more, "wrong"),
        (reset, "reset"),
        (reset_halfway, "reset"),
    ],
)
def test_counts_each_outcome(answer: Answer, outcome: str, poem: Path) -> None:
    """Twenty connections that all end in the same way are counted as that."""
    with serving(answer) as address:
        result = Load(address, expect=[poem], connections=20, at_once=4).run()
    assert counts(result) == {outcome: 20}
    assert (result.begun, result.failures) == (20, 0 if outcome == "ok" else 20)


def test_counts_a_mixture(poem: Path) -> None:
    """Outcomes that come in turn are kept apart."""
    with serving(send_all, send_part, send_all, send_another, reset) as address:
        result = Load(address, expect=[poem], connections=50, at_once=1).run()
    assert counts(result) == {"ok": 20, "short": 10, "wrong": 10, "reset": 10}


@pytest.mark.parametrize("unix", [False, True])
def test_counts_refusals(unix: bool, poem: Path, tmp_path: Path) -> None:
    """Where nobody listens, every connection is refused."""
    with socket.socket() as bound:  # bound, and not listening
        bound.bind((LOCAL, 0))
        target = tmp_path / "nobody" if unix else bound.getsockname()
        result = Load(target, expect=[poem], connections=20).run()
    assert counts(result) == {"refused": 20}


@pytest.mark.parametrize("sent", ["", "I have sent before I read"])
def test_counts_timeouts(sent: str, poem: Path) -> None:
    """A server that accepts nobody has each of its clients give up."""
    with socket.socket() as listener:
        listener.bind((LOCAL, 0))
        with listening(listener):
            load = Load(listener.getsockname(), expect=[poem], connections=3, timeout=0.05, send=sent)
            assert counts(load.run()) == {"timeouts": 3}


def test_sends_before_it_reads(poem: Path) -> None:
    """What is to be sent arrives whole, and the answer comes after it."""
    heard: list[bytes] = []

    def listen_first(client: socket.socket) -> None:
        heard.append(client.makefile("rb").read(5))
        send_all(client)

    with serving(listen_first) as address:
        result = Load(address, expect=[poem], connections=10, send="hello").run()
    assert counts(result) == {"ok": 10}
    assert heard == [b"hello"] * 10


def test_resets_by_input_that_nobody_read(poem: Path) -> None:
    """A server that closes without having read what was sent resets the connection, and that is counted."""

    def close_with_input(client: socket.socket) -> None:
        assert client.recv(1, socket.MSG_PEEK) == b"h"
        send_all(client)

    with serving(close_with_input) as address:
        result = Load(address, expect=[poem], connections=10, send="hello").run()
    assert counts(result) == {"reset": 10}


@pytest.mark.parametrize(("body", "outcome"), [(POEM, "ok"), (POEM[:-1], "short"), (POEM + b".", "wrong")])
def test_http_bodies_follow_the_empty_line(body: bytes, outcome: str, poem: Path) -> None:
    """The header of an HTTP answer is not compared, however it is cut into packets."""

    def answer(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (b"HTTP/1.1 200 OK\r\nServer: x\r\n\r", b"\n" + body[:10], body[10:]):
            client.sendall(part)

    with serving(answer) as address:
        result = Load(address, expect=[poem], connections=5, http=True).run()
    assert counts(result) == {outcome: 5}


def test_header_without_an_end_is_short(poem: Path) -> None:
    """An answer that ends in its header has no body."""
    with serving(lambda client: client.sendall(b"HTTP/1.1 200 OK\r\n")) as address:
        result = Load(address, connections=5, http=True).run()
    assert counts(result) == {"short": 5}


def test_either_of_two_bodies_is_right(poem: Path, tmp_path: Path) -> None:
    """Of two answers that are allowed each is counted; a mixture of them is wrong."""
    other = tmp_path / "other.txt"
    other.write_bytes(POEM[:1000] + POEM[:500].upper())

    def send_other(client: socket.socket) -> None:
        client.sendall(other.read_bytes())

    def send_mixture(client: socket.socket) -> None:
        client.sendall(other.read_bytes()[:1200] + POEM[1200:])

    with serving(send_all, send_other, send_other, send_mixture) as address:
        result = Load(address, expect=[poem, other], connections=40, at_once=1).run()
    assert counts(result) == {"ok": 30, "wrong": 10}
    assert result.matched == [10, 20]


def test_clients_come_from_many_addresses() -> None:
    """Each client has another address in 127.0.0.0/8, until there are as many as were asked for."""
    seen: list[str] = []

    def note(client: socket.socket) -> None:
        seen.append(client.getpeername()[0])
        send_all(client)

    with serving(note) as address:
        Load(address, connections=600, sources=300, at_once=1).run()
    assert len(set(seen)) == 300
    assert seen[:300] == seen[300:]
    assert all(peer.startswith("127.") for peer in seen)


def test_full_backlog_of_a_unix_socket_is_waited_for(poem: Path, tmp_path: Path) -> None:
    """Clients that find no room in the backlog wait, as they would in a connect that may block."""
    go_on = threading.Event()

    def wait_first(client: socket.socket) -> None:
        go_on.wait()
        send_all(client)

    path = tmp_path / "socket"
    with (
        serving(wait_first, path=path) as address,
        Load(address, [poem], 400, at_once=400).start() as running,
    ):
        go_on.set()
        result = running.wait()
    assert counts(result) == {"ok": 400}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once(number: signal.Signals, poem: Path) -> None:
    """Told to stop, it prints what it has, and what was open is counted apart from failures."""
    accepted = threading.Event()

    def tell(client: socket.socket) -> None:
        accepted.set()
        client.recv(1)

    with serving(tell) as address, Load(address, expect=[poem], timeout=3600).start() as running:
        assert accepted.wait(PATIENCE)
        os.kill(running.process.pid, number)
        result = running.wait()
    assert counts(result) == {"unfinished": 32}
    assert result.failures == 0


def test_gap_lasts_until_the_end(poem: Path) -> None:
    """A server that falls silent makes a gap that lasts from its last answer to the end of the run."""
    silence = threading.Event()

    def answer_and_fall_silent(client: socket.socket) -> None:
        if not silence.is_set():
            send_all(client)
            silence.set()
        else:
            client.recv(1)

    with serving(answer_and_fall_silent) as address:
        result = Load(address, expect=[poem], connections=2, at_once=1, timeout=0.2).run()
    assert counts(result) == {"ok": 1, "timeouts": 1}
    assert 0.2 <= result.gap <= result.seconds


def test_rate_is_kept(poem: Path) -> None:
    """Connections begin at the rate that was asked for, and their latencies are in order."""
    with serving(send_all) as address:
        result = Load(address, expect=[poem], connections=100, rate=500, at_once=200).run()
    assert counts(result) == {"ok": 100}
    assert result.seconds >= 99 / 500
    assert 0 < result.p50 <= result.p90 <= result.p99 <= result.max


def test_latency_at_a_rate_counts_from_when_it_was_due(poem: Path) -> None:
    """A server that stalls is not forgiven because its clients were kept from connecting meanwhile."""
    stall: Sequence[threading.Event] = (threading.Event(), threading.Event())

    def stall_once(client: socket.socket) -> None:
        if not stall[0].is_set():
            stall[0].set()
            stall[1].wait(0.3)
        send_all(client)

    with serving(stall_once) as address:
        result = Load(address, expect=[poem], connections=50, rate=1000, at_once=1).run()
    assert counts(result) == {"ok": 50}
    assert result.p90 > 0.2  # all fifty were due within the first 50 ms of these 300
