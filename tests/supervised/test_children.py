"""Children of an application: they are ordinary processes, and inherit nothing from Tamed."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.supervised.children import APPLICATION, TALE
from tests.supervised.daemon import Daemon, Tamed, is_there, wait_for, whole
from tests.supervised.talk import connected, finish

FORKS = ("os.fork", "pty.fork", "fork")
WAYS = (*FORKS, "forkserver", "spawn")


def write(tamed: Tamed, *ways: str) -> None:
    """Write the application, which creates children in these ways."""
    tamed.write("tale.py", TALE)
    tamed.write("ways", " ".join(ways))
    tamed.write("app.py", APPLICATION)


def told(tamed: Tamed, way: str) -> dict[str, Any]:
    """Wait for the report of a child."""
    path = tamed.folder / way
    wait_for(f"the tale of {way}", path.exists)
    tale: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return tale


def opened(pid: int) -> dict[int, str]:
    """Return the open descriptors of a process, except those that it is closing."""
    found = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[int(each.name)] = str(each.readlink())
    return found


def listening() -> set[str]:
    """Return the listening sockets, by their names in the list of open descriptors."""
    rows = Path("/proc/net/tcp").read_text()  # among them may be thousands that do not
    return {f"socket:[{inode}]" for inode in re.findall(r"(?m)^ *\d+: \S+ \S+ 0A(?: +\S+){5} +(\d+)", rows)}


def expect_ordinary(tale: dict[str, Any], parent: int, *ours: int) -> None:
    """Check that a child inherits no handler, none of these descriptors, and no port."""
    pid = tale.pop("pid")
    assert tale == {"caught": [], "wakeup": -1, "blocked": []}
    theirs, ports = opened(parent), listening()
    assert not {*ports, *(theirs[number] for number in ours)} & {*opened(pid).values()}
    assert ports & {*theirs.values()}


@pytest.mark.parametrize(
    ("loop", "options"), [("asyncio", ()), ("uvloop", ("--preload",))], ids=["asyncio", "uvloop-preload"]
)
def test_a_child_of_a_worker_is_an_ordinary_process(tamed: Tamed, loop: str, options: tuple[str]) -> None:
    """However it was made: no handler, no socket of ours; what it logs and prints is in the log.

    A program that a worker executes gets standard input and output, and nothing else.
    """
    write(tamed, *WAYS)
    daemon = tamed.start("--loop", loop, *options, "app.py")
    (worker,) = daemon.workers()
    for way in WAYS:
        expect_ordinary(told(tamed, way), worker, 3, 4)
    for way in ("os.fork", "fork"):
        daemon.expect_log(rf"output\[\d+\]: WARNING tale\[\d+\]: logged by way of {way}\n")
        daemon.expect_log(rf"output\[\d+\]: printed by way of {way}\n")
    with connected(daemon.port) as (_, sock):
        assert finish(sock, b"terminate fork") == b"-15"
    with connected(daemon.port) as (_, sock):
        helper = int(finish(sock, b"run sleep 3600"))
    theirs = opened(worker)
    # uvloop lets it have its own copies of these three.
    # It may still be reading files of its own, which it closes as soon as it sleeps.
    # What `pty.fork` opens goes with all that uvloop starts, as Python says that it may.
    usual = {theirs[0], theirs[1], theirs[2]}
    wait_for("nothing else", lambda: {*opened(helper).values()} - {"/dev/ptmx"} == usual)
    assert daemon.workers() == [worker]
    daemon.stop()
    assert not is_there(helper)


def test_a_child_that_a_thread_makes_is_one_too(tamed: Tamed) -> None:
    """The thread becomes the main thread of the child, in each way to create it."""
    write(tamed, "thread", *WAYS)
    daemon = tamed.start("app.py")
    (worker,) = daemon.workers()
    for way in WAYS:
        expect_ordinary(told(tamed, way), worker, 3, 4)
    daemon.stop()


@contextmanager
def on_its_own(tamed: Tamed, *options: str | Path) -> Iterator[int]:
    """Run the application without a supervisor; its output is a file that its children may keep open."""
    with (tamed.folder / "output").open("w") as output:
        command = tamed.popen("run", *options, "app.py", stdout=output, stderr=output)
    with command:
        yield command.pid


def expect_output(tamed: Tamed, pattern: str) -> re.Match[str]:
    """Wait until this is in the output of the application."""
    path = tamed.folder / "output"
    return wait_for(f"{pattern!r} in the output", lambda: re.search(pattern, path.read_text()))


@pytest.mark.parametrize("loop", [pytest.param("asyncio", marks=pytest.mark.long), "uvloop"])
def test_a_child_of_a_process_on_its_own_is_one_too(tamed: Tamed, loop: str) -> None:
    """When its parent is killed, it holds neither the port nor the pid file; it logs to the same place."""
    write(tamed, *FORKS)
    pid_file = tamed.folder / "pid"
    with on_its_own(tamed, "--loop", loop, "--pid-file", pid_file) as pid:
        port = expect_output(tamed, r"listening on 127.0.0.1:(\d+)\n")[1]
        for way in FORKS:
            expect_ordinary(told(tamed, way), pid)
        expect_output(tamed, r"WARNING +tale: logged by way of fork\n")
    tamed.write("app.py", APPLICATION.replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    tamed.write("ways", "")
    with on_its_own(tamed, "--pid-file", pid_file) as pid:
        expect_output(tamed, r"app is ready\n")
        assert pid_file.read_text() == f"{pid}\n"


def lines(log: Path, who: str) -> list[int]:
    """Return the numbers that a process has logged, from all files of a log."""
    return sorted(map(int, re.findall(rf"root: {who} (\d+)\n", whole(log))))


BOTH_LOG = """
import logging, os, time
from tamed import Application, Service

class Writer(Service):
    async def start(self):
        if os.fork() == 0:
            for number in range(1500):
                time.sleep(0.0005)
                logging.info("child %d", number)
            os._exit(0)

    async def run(self):
        for number in range(1500):
            time.sleep(0.0005)
            logging.info("parent %d", number)
        os.wait()

application = Application("app", Writer())
"""


def test_a_child_logs_into_the_file_that_has_the_name(tamed: Tamed) -> None:
    """The child and its parent write to the file, and only the parent rotates it; no line is lost."""
    tamed.write("app.py", BOTH_LOG)
    log = tamed.folder / "app.log"
    rotate = ("--log-rotate", "10KB", "--log-keep", "1000", "--log-no-compress")
    with on_its_own(tamed, "--log", log, *rotate) as pid:
        wait_for("the last lines", lambda: all(1499 in lines(log, who) for who in ("child", "parent")))
        os.kill(pid, signal.SIGTERM)
        wait_for("the end", lambda: not is_there(pid))
    assert len(list(tamed.folder.glob("app.log*"))) > 5
    assert [lines(log, who) for who in ("child", "parent")] == [[*range(1500)]] * 2


def kill_workers(daemon: Daemon) -> None:
    """Kill all workers, and wait for their replacements."""
    workers = daemon.workers()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    daemon.wait_workers(len(workers), without=workers)


def ask(*words: str) -> Callable[[Daemon], None]:
    """Return a function that sends a request to a daemon."""

    def give(daemon: Daemon) -> None:
        done = daemon.tamed(*words)
        assert done.status == 0, done

    return give


def end_supervisor(daemon: Daemon) -> None:
    """Kill only the supervisor."""
    daemon.signal(signal.SIGKILL)
    daemon.wait_gone()


ENDS = {
    "kill": kill_workers,
    "reload": ask("reload"),
    "upgrade": ask("upgrade"),
    "stop": ask("stop"),
    "force": ask("stop", "--force", "--timeout", "0s"),
    "supervisor": end_supervisor,
}


@pytest.mark.parametrize(
    ("end", "options"),
    [
        *((end, ()) for end in ("kill", "stop", "force")),
        *(pytest.param(end, (), marks=pytest.mark.long) for end in ("reload", "supervisor")),
        ("upgrade", ("--preload",)),  # with a reload in it
        ("supervisor", ("--preload",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value),
)
def test_the_group_of_a_worker_ends_with_it(tamed: Tamed, end: str, options: tuple[str]) -> None:
    """Whatever ends it: its children are gone before the next one has any, and the port is free.

    A child that has left the group ends too, once its parent is gone, or at the latest with the daemon.
    """
    ways = ["os.fork"]
    if end == "kill":
        ways.append("obstinate")  # which is killed two seconds later
    write(tamed, *ways)
    daemon = tamed.start(*options, "app.py")
    (worker,) = daemon.workers()
    children = [told(tamed, way)["pid"] for way in ways]
    with connected(daemon.port) as (_, sock):
        children.append(int(finish(sock, b"run sleep 3600")))
    assert {os.getpgid(pid) for pid in children} == {worker}
    strayed = 0
    if end in ("kill", "reload", "stop", "force"):
        with connected(daemon.port) as (_, sock):
            strayed = int(finish(sock, b"run setsid sleep 3600"))
        wait_for("its session", lambda: os.getsid(strayed) == strayed)
    ENDS[end](daemon)
    wait_for("the end of one that has left the group", lambda: not is_there(strayed))
    if end in ("reload", "upgrade", "supervisor"):  # it drains
        wait_for("the end of the worker", lambda: not is_there(worker))
        wait_for("the end of its children", lambda: not any(map(is_there, children)))
    assert [pid for pid in (worker, *children) if is_there(pid)] == []
    if end not in ("stop", "force", "supervisor"):
        daemon.stop()
    wait_for("the end", lambda: tamed.processes() == [])
    socket.create_server(("127.0.0.1", daemon.port)).close()


def test_a_process_that_was_let_go_lives_as_long_as_the_daemon(tamed: Tamed) -> None:
    """A daemon that an application has started, and left behind, ends only with the stop."""
    write(tamed, "detached")
    daemon = tamed.start("--workers", "2", "app.py")
    pid = told(tamed, "detached")["pid"]
    status = Path(f"/proc/{pid}/status")
    wait_for("the end of its parent", lambda: f"\nPPid:\t{daemon.pid}\n" in status.read_text())
    assert tamed("scale", "3").status == 0  # who is adopted is noted when a worker becomes ready
    for _ in range(2):
        kill_workers(daemon)
        assert is_there(pid)
    daemon.stop()
    assert not is_there(pid)
