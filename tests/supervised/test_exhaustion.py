"""Daemons that run out of descriptors, processes or memory: they go on, and recover."""

import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import POEM, Tamed, needs_root, read_poem, wait_for
from tests.supervised.talk import Load

# Three kinds of server, and a client that stays is served as one that leaves.
SERVERS = """
import asyncio
from tamed import Application, ProtocolServer, ReplyServer, StreamServer

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        transport.write(b"hello\\n")

    def data_received(self, data):
        self.transport.write(data)

async def echo(reader, writer):
    writer.write(b"hello\\n")
    while data := await reader.read(100):
        writer.write(data)

application = Application(
    "app",
    ProtocolServer("127.0.0.1:0", Echo, name="protocol"),
    StreamServer("127.0.0.1:0", echo, name="stream"),
    ReplyServer("127.0.0.1:0", lambda peer: b"hello\\n", name="reply"),
)
"""

TAC = """
from twisted.application import internet, service
from twisted.internet import protocol

class Echo(protocol.Protocol):
    def connectionMade(self):
        self.transport.write(b"hello\\n")

    def dataReceived(self, data):
        self.transport.write(data)

factory = protocol.Factory.forProtocol(Echo)
application = service.Application("app")
internet.TCPServer(0, factory, interface="127.0.0.1").setServiceParent(application)
"""


@contextmanager
def starved(pid: int, spare: int = 0) -> Iterator[None]:
    """Inside the ``with``, limit a process to its current descriptors and so many more."""
    wait_for("rest", lambda: _is_waiting(pid))  # it may be about to close something
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    free = [number for number in range(len(taken) + spare + 1) if number not in taken]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[spare], before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _is_waiting(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def processor_time(pid: int) -> float:
    """Return the CPU time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_calm(pid: int) -> bool:
    """Return whether a process is almost idle for a while, unlike a busy loop."""
    before = processor_time(pid)
    time.sleep(1)
    return processor_time(pid) - before < 0.2


def clients_that_stay(ports: list[int], count: int, stack: ExitStack) -> list[socket.socket]:
    """Connect clients that stay connected."""
    return [
        stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
        for _ in range(count)
        for port in ports
    ]


@pytest.mark.parametrize(
    ("kind", "loop"),
    [
        pytest.param("servers", "asyncio", marks=pytest.mark.long),
        ("servers", "uvloop"),
        ("twisted", "asyncio"),
    ],
)
def test_more_clients_than_descriptors_wait_and_are_served(tamed: Tamed, kind: str, loop: str) -> None:
    """The worker pauses, the log has a line and no traceback, and all clients are served in the end."""
    if kind == "twisted":
        pytest.importorskip("twisted")
    file = tamed.write("app.py", SERVERS) if kind == "servers" else tamed.write("app.tac", TAC)
    daemon = tamed.start("--loop", loop, "--max-files", "64", "--workers", "1", file)
    ports = [int(address.rpartition(":")[2]) for address in daemon.addresses]
    (worker,) = daemon.workers()
    with ExitStack() as stack:
        clients = clients_that_stay(ports, 100 // len(ports), stack)
        daemon.expect_log("cannot accept connections: Too many open files \\(RLIMIT_NOFILE is 64\\)")
        wait_for("rest", lambda: is_calm(worker))
        assert daemon.status()["state"] == "running"
        for client in clients:
            assert client.recv(6) == b"hello\n"
            client.close()
    daemon.expect_log("accepts connections again")
    assert "Traceback" not in daemon.log
    assert daemon.log.count("cannot accept") <= len(ports)
    daemon.stop()


def test_an_administrator_is_answered_without_descriptors(tamed: Tamed) -> None:
    """The reserved descriptor is used; the supervisor is idle while other clients wait.

    A worker is replaced once there are descriptors: until then the attempt is repeated, and no process ends.
    A stop needs none: the supervisor and the workers end, and nothing is left.
    """
    daemon = tamed.start_poetry("--workers", "2")
    with starved(daemon.pid, spare=1):  # its number is below that of the one in reserve
        assert len(daemon.workers()) == 2
        with ExitStack() as stack:
            for _ in range(3):  # one is accepted, the others wait
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(daemon.folder / f"{daemon.name}.sock"))
            wait_for("rest", lambda: is_calm(daemon.pid))
        assert len(daemon.workers()) == 2
        done = tamed("reload", daemon.name)
        assert (done.status, done.err.count("\n")) == (71, 1), done
        assert "Too many open files" in done.err
        done = tamed("upgrade", daemon.name)
        assert (done.status, done.err.count("\n")) == (71, 1), done
        assert "Too many open files" in done.err
        assert read_poem(daemon.port) == POEM
        victim, other = daemon.workers()
        os.kill(victim, signal.SIGKILL)
        daemon.expect_log("(?s)a worker cannot be started: .*a worker cannot be started: ")
        assert daemon.workers() == [other]
        assert read_poem(daemon.port) == POEM
    daemon.wait_workers(2, without=[victim])
    assert tamed("reload", daemon.name).status == 0
    assert "Traceback" not in daemon.log
    with ExitStack() as stack:
        for pid in (daemon.pid, *daemon.workers()):
            stack.enter_context(starved(pid))
        stack.pop_all()
        daemon.stop()


def test_the_only_worker_is_replaced_once_there_are_descriptors(tamed: Tamed) -> None:
    """Refusals of the system are not counted; clients wait meanwhile."""
    daemon = tamed.start_poetry("--workers", "1")
    (victim,) = daemon.workers()
    with starved(daemon.pid):
        os.kill(victim, signal.SIGKILL)
        daemon.expect_log("(?s)(a worker cannot be started: .*){5}")
    assert read_poem(daemon.port) == POEM
    daemon.stop()


def test_the_log_goes_on_in_its_file_without_descriptors(tamed: Tamed) -> None:
    """A rotation and a reopening wait until there are descriptors."""
    daemon = tamed.start_poetry("--workers", "1", "--log-rotate", "2 kB")
    log = daemon.log_file
    inode = log.stat().st_ino
    with starved(daemon.pid):
        daemon.signal(signal.SIGUSR1)
        daemon.expect_log("cannot reopen the log .*Too many open files")
        for _ in range(40):
            daemon.signal(signal.SIGTTOU)  # says that at least one worker is needed
            time.sleep(0.01)
        daemon.expect_log("cannot rotate the log .*Too many open files")
        assert log.stat().st_ino == inode
        assert daemon.log.count("cannot rotate the log") == 1
    daemon.stop()


def test_workers_that_lose_their_supervisor_end_without_descriptors(tamed: Tamed) -> None:
    """They end although they cannot open `/dev/null` for their output."""
    daemon = tamed.start_poetry("--workers", "2")
    with ExitStack() as stack:
        for pid in daemon.workers():
            stack.enter_context(starved(pid))
        stack.pop_all()
        daemon.signal(signal.SIGKILL)
        wait_for("the end of the workers", lambda: not tamed.processes())


@needs_root
@pytest.mark.parametrize(
    "options", [(), pytest.param(("--preload",), marks=pytest.mark.long)], ids=["spawn", "preload"]
)  # either way a template forks them
def test_a_worker_is_replaced_once_there_are_processes(public_tamed: Tamed, options: tuple[str, ...]) -> None:
    """Beyond RLIMIT_NPROC a fork fails with EAGAIN; no process ends because of that."""
    user = str(100_000 + os.getpid())  # whose processes are no others
    daemon = public_tamed.start_poetry("--workers", "2", "--user", user, "--group", user, *options)
    victim, other = daemon.workers()
    templates = {pid for pid in public_tamed.processes() if _is_template(pid)} - {victim, other}
    limited = [daemon.pid, *templates]
    _limit_processes(limited, int(user), "1:")
    os.kill(victim, signal.SIGKILL)
    daemon.expect_log("(?s)(a worker cannot be started: Resource temporarily unavailable.*){3}")
    assert daemon.workers() == [other]
    assert daemon.status()["state"] == "degraded"
    assert read_poem(daemon.port) == POEM
    done = public_tamed("reload", daemon.name)
    assert (done.status, done.err.count("\n")) == (71, 1), done
    _limit_processes(limited, int(user), "1000:")
    daemon.wait_workers(2, without=[victim])
    assert re.search("Traceback|the template of the workers was ended", daemon.log) is None
    daemon.stop()


def _limit_processes(pids: list[int], user: int, limit: str) -> None:
    """Limit the processes that these may start, as their own user: root may lack the right."""
    for pid in pids:
        subprocess.run(["prlimit", "--pid", str(pid), f"--nproc={limit}"], check=True, user=user, group=user)


def _is_template(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"\0template\0")


# Leaks a megabyte whenever a client is answered, slowly: memory has to last for the measurements.
LEAKS = """
import asyncio, os
from tamed import Application, StreamServer

kept = []

async def leak(reader, writer):
    kept.append(bytearray(b"x" * 1_000_000))
    await asyncio.sleep(0.1)
    writer.write(b"%d\\n" % os.getpid())
    await reader.readline()
    writer.write(b"poem")

application = Application("app", StreamServer("127.0.0.1:0", leak))
"""


def test_workers_that_leak_are_replaced_and_no_client_notices(tamed: Tamed) -> None:
    """Three measurements in a row above the limit; the log has the figure."""
    tamed.write("app.py", LEAKS)
    daemon = tamed.start("--workers", "2", "--max-worker-memory", "90 MB", "app.py")
    first = daemon.workers()
    with Load(daemon.port, clients=2) as load:
        wait_for("the end of the first", lambda: not set(daemon.workers()) & set(first))
    assert load.failed == []
    told = daemon.expect_log(
        r"worker \d+ uses (\S+) MB, more than 90.0 MB \(max-worker-memory\): replacing it"
    )
    assert float(told[1]) > 90
    daemon.stop()


def test_a_limit_below_what_a_worker_needs_is_warned_of(tamed: Tamed) -> None:
    """No worker is replaced because of it."""
    daemon = tamed.start_poetry("--workers", "2", "--max-worker-memory", "1 MB")
    workers = daemon.workers()
    daemon.expect_log(
        r"(?s)(WARNING \S+ worker \d+ uses .* from its beginning: the limit may be less than .*){2}"
    )
    assert daemon.workers() == workers
    daemon.stop()
