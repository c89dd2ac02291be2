"""Workers that die, block or misbehave, and a supervisor that is killed."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import pytest

from tests.supervised.daemon import PATIENCE, POEM, Daemon, Tamed, is_there, read_poem, wait_for

# Says which process it is, waits for a word, does what it says, and recites.
APPLICATION = """
import asyncio, ctypes, os, sys, time
from tamed import Application, Service, StreamServer

async def recite(reader, writer):
    writer.write(b"%d\\n" % os.getpid())
    match (await reader.readline()).strip():
        case b"block":
            time.sleep(3600)
        case b"exit":
            application.exit(5)
        case b"crash":
            print("about to crash")
            ctypes.string_at(0)
        case b"babble":
            os.write(3, b"this is no message\\n")
        case b"hush":
            os.closerange(3, 5)
        case b"print":
            print("printed")
            os.system("echo by a child >&2")
            assert os.isatty(0) is False and sys.stdin.read() == ""
    writer.write(b"poem")

application = Application("app", StreamServer("127.0.0.1:0", recite))
"""


class Heard(NamedTuple):
    """What a client has got: the pid of the worker that served it, 0 if it did not say, and the rest."""

    worker: int
    rest: bytes


@contextmanager
def connected(port: int) -> Iterator[tuple[int, socket.socket]]:
    """Connect, and tell which worker answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        line = b""
        while not line.endswith(b"\n"):
            if not (byte := sock.recv(1)):
                raise ConnectionResetError
            line += byte
        yield int(line), sock


def say(port: int, word: bytes) -> Heard:
    """Say a word to a worker and hear it out."""
    worker, rest = 0, b""
    try:
        with connected(port) as (worker, sock):
            sock.sendall(word + b"\n")
            while data := sock.recv(4096):
                rest += data
    except ConnectionError:
        pass
    return Heard(worker, rest)


class Load:
    """Clients that come one after the other, in several threads, until it is left."""

    def __init__(self, port: int, clients: int = 8) -> None:
        self.heard: list[Heard] = []
        self._is_over = threading.Event()
        self._port = port
        self._threads = [threading.Thread(target=self._come) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> list[Heard]:
        """What those have got who did not get everything."""
        return [heard for heard in self.heard if heard.rest != b"poem"]

    def wait(self, more: int) -> None:
        """Wait until so many more have been served."""
        count = len(self.heard) + more
        wait_for("clients", lambda: len(self.heard) >= count)

    def _come(self) -> None:
        while not self._is_over.is_set():
            self.heard.append(say(self._port, b"recite"))


@pytest.fixture
def daemon(tamed: Tamed) -> Daemon:
    """Two workers that do what one says, and are looked after closely."""
    tamed.write("app.py", APPLICATION)
    return tamed.start("--workers", "2", "--watchdog", "1s", "app.py")


def test_a_worker_that_is_killed_under_load_is_replaced(daemon: Daemon) -> None:
    """Only connections that it had accepted fail; the log and the status tell."""
    workers = daemon.workers()
    victim = workers[0]
    with Load(daemon.port) as load:
        load.wait(50)
        os.kill(victim, signal.SIGKILL)
        daemon.wait_workers(2, without=[victim])
        load.wait(200)
    assert {heard.worker for heard in load.failed} <= {victim, 0}
    assert len(load.failed) <= 8
    assert len({heard.worker for heard in load.heard} - {0}) == 3
    told = rf"worker {victim} was ended by SIGKILL"
    daemon.expect_log(rf"ERROR tamed: {told}; another one is started in 0\.1 s\n")
    daemon.expect_log(r"INFO tamed: worker \d+ is ready\n")
    assert daemon.status()["last_error"] == told
    assert f"last error: {told}\n" in daemon.tamed("status").out
    daemon.stop()


def test_a_worker_that_blocks_is_dumped_and_replaced(daemon: Daemon) -> None:
    """Its Python stacks are in the log, with its pid; the other worker goes on serving."""
    with connected(daemon.port) as (victim, sock):
        sock.sendall(b"block\n")
        with Load(daemon.port, clients=2) as load:
            daemon.expect_log(
                rf"worker {victim} has not answered for 1 s: its stacks follow, and it is ended\n"
            )
            daemon.wait_workers(2, without=[victim])
        assert {heard.worker for heard in load.failed} <= {victim, 0}
        assert any(heard.rest == b"poem" for heard in load.heard)
    found = daemon.expect_log(rf'output\[{victim}\]:   File ".*app.py", line 9 in recite\n')
    before = daemon.log[: found.start()]
    assert re.search(rf"output\[{victim}\]: Fatal Python error: Aborted\n", before)
    assert f"worker {victim} was ended by SIGABRT" in daemon.log
    daemon.stop()


def test_a_worker_that_does_not_even_abort_is_killed(daemon: Daemon) -> None:
    """One that is stopped cannot write its stacks."""
    victim = daemon.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    daemon.expect_log(f"worker {victim} has not answered")
    daemon.wait_workers(2, without=[victim])
    assert f"worker {victim} was ended by SIGKILL" in daemon.log
    daemon.stop()


def test_a_supervisor_that_was_stopped_does_not_blame_its_workers(daemon: Daemon) -> None:
    """What they have said meanwhile is read before anyone is judged."""
    workers = daemon.workers()
    daemon.signal(signal.SIGSTOP)
    time.sleep(1.5)  # longer than the watchdog's patience; that is what the test is about
    daemon.signal(signal.SIGCONT)
    assert daemon.workers() == workers
    assert "has not answered" not in daemon.log
    daemon.stop()


def test_what_a_crash_prints_is_in_the_log(daemon: Daemon) -> None:
    """With the pid of the worker: what Python still could say, and what was printed before."""
    victim = say(daemon.port, b"crash").worker
    daemon.expect_log(rf"WARNING output\[{victim}\]: about to crash\n")
    daemon.expect_log(rf"output\[{victim}\]: Fatal Python error: Segmentation fault\n")
    daemon.expect_log(rf"worker {victim} was ended by SIGSEGV; another one is started")
    daemon.wait_workers(2, without=[victim])
    daemon.stop()


def test_what_is_printed_is_in_the_log(daemon: Daemon) -> None:
    """By the application and by what it starts; there is nothing to read on standard input."""
    heard = say(daemon.port, b"print")
    assert heard.rest == b"poem"
    daemon.expect_log(rf"WARNING output\[{heard.worker}\]: printed\n")
    daemon.expect_log(rf"WARNING output\[{heard.worker}\]: by a child\n")
    daemon.stop()


def test_a_worker_that_cannot_be_understood_is_replaced(daemon: Daemon) -> None:
    """Whatever a worker writes to its channel does not harm the supervisor."""
    victim = say(daemon.port, b"babble").worker
    daemon.expect_log(rf"worker {victim} cannot be understood \(.*\): ended\n")
    daemon.wait_workers(2, without=[victim])
    daemon.stop()


def test_a_worker_without_its_channel_is_replaced(daemon: Daemon) -> None:
    """It can neither be asked nor give a sign of life."""
    victim = say(daemon.port, b"hush").worker
    daemon.wait_workers(2, without=[victim])
    assert f"worker {victim} was ended by" in daemon.log or f"worker {victim} has not answered" in daemon.log
    daemon.stop()


def test_an_application_that_wants_to_end_ends_the_daemon(daemon: Daemon) -> None:
    """All workers stop, and nothing is left."""
    say(daemon.port, b"exit")
    daemon.wait_gone()
    assert "the application ends, with status 5: stopping\n" in daemon.log
    wait_for("the end", lambda: daemon.tamed.left() == {})


def test_the_status_of_an_application_is_that_of_its_supervisor(tamed: Tamed) -> None:
    """In the foreground it can be seen."""
    tamed.write("app.py", APPLICATION)
    with tamed.foreground("run", "--workers", "2", "app.py") as process:
        port = int(process.expect(r"ready: pid \d+, listening on 127.0.0.1:(\d+)")[1])
        say(port, b"exit")
        assert process.wait() == 5
    assert tamed.left() == {}


def test_workers_outlive_a_killed_supervisor_only_to_drain(daemon: Daemon) -> None:
    """They finish what they have accepted; the next start works at once, on the same port too."""
    workers = daemon.workers()
    with connected(daemon.port) as (worker, sock):
        daemon.signal(signal.SIGKILL)
        daemon.wait_gone()
        other = next(pid for pid in workers if pid != worker)
        wait_for("the end of the idle worker", lambda: not is_there(other))
        sock.sendall(b"print\n")
        rest = b""
        while data := sock.recv(4096):
            rest += data
        assert rest == b"poem"
    wait_for("the end of the workers", lambda: not any(map(is_there, workers)))
    assert (daemon.folder / "app.pid").exists()
    after = daemon.tamed.start("--name", "app", "fastpoetry", "--port", str(daemon.port))
    assert read_poem(after.port).startswith(b"The Ecstasy")
    after.stop()


def test_a_start_right_after_a_kill_works(tamed: Tamed) -> None:
    """The workers of the killed supervisor let go of the port before the next one needs it."""
    daemon = tamed.start_poetry()
    daemon.signal(signal.SIGKILL)
    daemon.wait_gone()
    after = tamed.start("fastpoetry", "--port", str(daemon.port), "--poem", tamed.poem)
    assert read_poem(after.port) == POEM
    after.stop()


def test_workers_that_cannot_start_any_more_end_the_daemon(tamed: Tamed) -> None:
    """After some attempts it gives up, with the status of the reason."""
    tamed.write(
        "app.py",
        "from pathlib import Path\nfrom tamed import Application\n"
        "if Path('broken').exists():\n    raise KeyError('rhyme')\napplication = Application('app')\n",
    )
    with tamed.foreground("run", "--workers", "4", "app.py") as process:
        process.expect("is ready")
        tamed.write("broken", "")
        workers = [pid for pid in tamed.processes() if pid != process.pid]
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        process.expect(
            r"ERROR tamed: worker \d+ failed: app.py raised while it was loaded: KeyError: 'rhyme'; another"
        )
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert tamed.left() == {}
