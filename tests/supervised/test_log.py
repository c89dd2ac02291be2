"""The log of a daemon: whole lines, each of them once, whatever happens to workers, files and disks."""

import os
import re
import select
import signal
import socket
import subprocess
import time
from collections import defaultdict

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import (
    POEM,
    Daemon,
    Tamed,
    needs_root,
    read_poem,
    rotated,
    wait_for,
    whole,
)

# Enough for the workers to write at the same time, and for fifteen rotations. 250,000 make a million of them
# all, which takes half a minute on a small machine.
LINES = int(os.environ.get("TAMED_TEST_LINES", "8000"))
WORKERS = 4

COUNTING = """
import asyncio, logging, os
from tamed import Application, Service

log = logging.getLogger("count")
LINES = {lines}

class Count(Service):
    async def run(self):
        for number in range(LINES):
            log.info("%d %d is a line that is as long as lines usually are", os.getpid(), number)
            if number % 100 == 0:
                await asyncio.sleep(0)
        open("done-%d" % os.getpid(), "x").close()

application = Application("app", Count("count"))
"""

CHATTY = """
import asyncio, logging, os
from tamed import Application, Service
log = logging.getLogger("app")

class Chatty(Service):
    async def run(self):
        number = 0
        while True:
            for _ in range(20):
                log.info("line %d of %d", number, os.getpid())
                number += 1
            await asyncio.sleep(0.01)

application = Application("app", Chatty("chatty"))
"""


def test_every_line_is_there_once_whole_and_in_order(tamed: Tamed) -> None:
    """With four workers that log as fast as they can, through more than ten rotations."""
    tamed.write("app.py", COUNTING.format(lines=LINES))
    options = ["--log", "app.log", "--log-rotate", str(LINES * WORKERS * 100 // 15), "--log-keep", "100"]
    daemon = tamed.start("--workers", str(WORKERS), *options, "app.py")
    workers = daemon.workers()
    log = tamed.folder / "app.log"
    patience = PATIENCE + LINES / 1000
    wait_for("the last lines", lambda: len(list(tamed.folder.glob("done-*"))) == WORKERS, patience)
    daemon.stop()
    assert len(rotated(log)) > 10
    numbers = defaultdict(list)
    for line in whole(log).splitlines():
        found = re.fullmatch(
            r"\S{29} \[\d\] INFO count: (\d+) (\d+) is a line that is as long as lines usually are", line
        )
        if found is not None:
            numbers[int(found[1])].append(int(found[2]))
        else:
            assert re.fullmatch(r"\S{29} (\[\d\] )?(INFO|WARNING) (tamed(\.service)?|count): .*", line), line
            assert " is a line " not in line
    assert sorted(numbers) == sorted(workers)
    assert all(found == list(range(LINES)) for found in numbers.values())


def test_a_record_of_many_lines_stays_together(tamed: Tamed) -> None:
    """Tracebacks of several workers that fail at the same time are not mixed."""
    tamed.write(
        "app.py",
        COUNTING.format(lines=200).replace(
            'log.info("%d %d is',
            'log.info("%d %d", os.getpid(), number, stack_info=True) or log.info("%d %d is',
        ),
    )
    daemon = tamed.start("--workers", "3", "app.py")
    wait_for("the last lines", lambda: len(list(tamed.folder.glob("done-*"))) == 3)
    daemon.stop()
    records = re.split(r"^(?=\d{4}-\d\d-\d\dT)", whole(daemon.log_file), flags=re.MULTILINE)
    stacks = [record for record in records if "Stack (most recent call last)" in record]
    assert len(stacks) == 600
    assert len({re.sub(r"\A.*\n", "", stack) for stack in stacks}) == 1


@needs_root
def test_a_full_disk_stops_nothing(tamed: Tamed) -> None:
    """The poem is served throughout; lost lines are counted, and the count is logged when there is room."""
    disk = tamed.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    try:
        tamed.write("chat.py", CHATTY)
        tamed.write(
            "all.toml",
            f"""
            [services.chat]
            application = "chat.py"
            [services.poetry]
            plugin = "fastpoetry"
            port = 0
            poem = "{tamed.poem}"
            """,
        )
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 100_000)
        log = disk / "all.log"
        options = ["--workers", "4", "--log", str(log), "--log-rotate", "60 kB", "--log-keep", "100"]
        daemon = tamed.start(*options, "all.toml")

        def is_full() -> bool:
            status = os.statvfs(disk)
            return status.f_bavail == 0

        wait_for("a full disk", is_full)
        for _ in range(50):
            assert read_poem(daemon.port) == POEM
        assert len(daemon.workers()) == 4
        ballast.unlink()
        told = r"WARNING tamed: (\d+) lines were lost between .+ and .+: No space left on device\n"
        wait_for("the count", lambda: re.search(told, whole(log)))
        assert len(daemon.workers()) == 4
        daemon.stop()
        lines = whole(log).splitlines()
        head = re.compile(r"\d{4}-\d\d-\d\dT\S{18} (\[\d+\] )?[A-Z]+ \S+: ")
        assert [line for line in lines if not head.match(line)] == []
    finally:
        tamed.close()
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_the_log_is_opened_anew_after_it_was_moved_away(tamed: Tamed) -> None:
    """As with logrotate, it is renamed before a USR1. No line is lost."""
    tamed.write("app.py", CHATTY)
    daemon = tamed.start("app.py")
    log = daemon.log_file
    daemon.expect_log("line 100 of")
    log.rename(daemon.log_file.with_suffix(".log.1"))
    daemon.signal(signal.SIGUSR1)
    wait_for("the new file", log.exists)
    daemon.expect_log("SIGUSR1: the log was reopened")
    daemon.expect_log(r"line \d+ of")
    daemon.stop()
    lines = whole(log)
    numbers = [int(number) for number in re.findall(r"line (\d+) of", lines)]
    assert numbers == list(range(len(numbers)))


@pytest.mark.unmeasured
def test_logs_follow_through_rotations(tamed: Tamed) -> None:
    """``logs -f -n`` begins with the last lines, also of older files, and misses no later line."""
    tamed.write("app.py", CHATTY)
    # The reader looks at all the files for each, so their number must not grow faster than it looks.
    daemon = tamed.start("--log-rotate", "32 kB", "--log-keep", "1000", "app.py")
    wait_for("rotations", lambda: len(rotated(daemon.log_file)) > 3)
    with tamed.begin("logs", "-f", "-n", "200") as follower:
        assert follower.stdout is not None
        lines = [follower.stdout.readline() for _ in range(3000)]
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=PATIENCE)
    assert follower.returncode == -signal.SIGINT
    numbers = [int(found[1]) for line in lines if (found := re.search(r"line (\d+) of", line))]
    assert len(numbers) == 3000
    assert numbers == list(range(numbers[0], numbers[0] + 3000))
    daemon.stop()


def test_clients_cannot_have_a_log_forget(tamed: Tamed) -> None:
    """Old lines are kept up to a size, however much clients let it log; then the loss is logged."""
    options = ["--log-rotate", "10 kB", "web", "--port", "0", "--root", str(tamed.folder)]
    daemon = tamed.start(*options)
    first = daemon.log.splitlines(keepends=True)[0]
    ask_much(daemon)
    wait_for("old files", lambda: len(rotated(daemon.log_file)) > 20)
    assert whole(daemon.log_file).startswith(first)
    daemon.stop()
    daemon = tamed.start("--log-max-use", "100 kB", *options)
    ask_much(daemon)
    daemon.stop()
    log = whole(daemon.log_file)
    assert first not in log
    assert 85_000 < len(log) < 115_000  # no more than one old file less than allowed
    gone = r"removed (an|[0-9]+) old files? of the log \S+, [0-9]+ bytes, the oldest written until [0-9]{4}-"
    assert re.search(gone, log)


def ask_much(daemon: Daemon) -> None:
    """Send requests, each of which is logged with a long line: four times what the second log may have."""
    ask = b"GET /%s HTTP/1.1\r\nHost: here\r\n\r\n" % (b"a" * 2000)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) as sock:
        answers = sock.makefile("rb")
        for _ in range(200):
            sock.sendall(ask)
            length = 0
            while (line := answers.readline()) != b"\r\n":
                assert line
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            answers.read(length)


def test_old_files_are_compressed(tamed: Tamed) -> None:
    """A child of the supervisor compresses them, one after the other."""
    tamed.write("app.py", CHATTY)
    daemon = tamed.start("--log-rotate", "4 kB", "--log-keep", "1000", "--log-compress", "app.py")
    wait_for("compressed logs", lambda: len(list(daemon.log_file.parent.glob("app.log.*.gz"))) > 2)
    daemon.stop()


def test_the_log_can_go_to_syslog(public_tamed: Tamed) -> None:
    """Records of workers and supervisor have their severity, name, pid and text."""
    address = public_tamed.folder / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(address))
        receiver.settimeout(PATIENCE)
        daemon = public_tamed.start_poetry("--log", f"syslog:unix:{address}")
        (worker,) = daemon.workers()
        received = [receiver.recv(65536).decode()]
        while "is ready" not in received[-1]:
            received.append(receiver.recv(65536).decode())
    ready = (
        rf"<30>1 \S+Z \S+ fastpoetry {daemon.pid} - - fastpoetry is ready: pid {daemon.pid}, listening on .*"
    )
    assert re.fullmatch(ready, received[-1])
    loaded = rf"<30>1 \S+Z \S+ fastpoetry {worker} - - loaded a poem of {len(POEM)} bytes from .*"
    assert any(re.fullmatch(loaded, message) for message in received)
    assert not daemon.log_file.exists()
    done = public_tamed("logs")
    assert done.status == 66
    assert done.err.startswith("tamed: fastpoetry has no log file; it goes to ")
    assert public_tamed("stop").status == 0
    assert public_tamed.left() == {}


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_reader_of_stderr_who_stops_reading_stops_nothing(tamed: Tamed, workers: list[str]) -> None:
    """The unread lines are lost, and are counted when the reader goes on."""
    tamed.write("app.py", CHATTY + "from tamed import StreamServer\n" + _GREETING)
    reading, writing = os.pipe()
    output: dict[str, int] = {"stdout": subprocess.DEVNULL, "stderr": writing}
    with os.fdopen(reading, "rb") as stream, tamed.popen("run", *workers, "app.py", **output) as process:
        os.close(writing)
        port = 0
        while not port:
            found = re.search(rb"listening on 127.0.0.1:(\d+)", stream.readline())
            port = int(found[1]) if found else 0
        while b"line 1000 of" not in stream.readline():
            continue
        wait_for("a full pipe", lambda: not _has_room(process.pid))
        enough = time.monotonic() + 1.5  # longer than it waits for its reader
        while time.monotonic() < enough:
            assert read_poem(port) == b"hello"
        while not re.search(rb"WARNING tamed: \d+ lines were lost: no process read them", stream.readline()):
            continue
        process.send_signal(signal.SIGTERM)
        rest = stream.read()
        assert process.wait(PATIENCE) == 0
    assert rest.endswith(b"\n")


_GREETING = """
async def greet(reader, writer):
    writer.write(b"hello")

application.add(StreamServer("127.0.0.1:0", greet))
"""


def _has_room(pid: int) -> bool:
    """Return whether the pipe of a process's standard error has room."""
    writing = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    try:
        return bool(select.select([], [writing], [], 0)[1])
    finally:
        os.close(writing)


def test_a_daemon_logs_what_it_does(tamed: Tamed) -> None:
    """The log has its signal once, and the stop of each worker with its pid."""
    daemon: Daemon = tamed.start_poetry("--workers", "2")
    workers = daemon.workers()
    daemon.stop()
    assert daemon.log.count("SIGTERM: stopping") == 1
    for pid in workers:
        stops, gone = f"worker {pid} is stopping (SIGTERM)\n", f"worker {pid} has stopped\n"
        assert daemon.log.index("SIGTERM: stopping") < daemon.log.index(stops) < daemon.log.index(gone)
