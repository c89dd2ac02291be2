"""A daemon that begins before its command line is read, with a real command."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed._os.proc import children_of
from tests.patience import PATIENCE
from tests.security import live
from tests.supervised.daemon import Command, Tamed, is_there, wait_for

# A plugin that is loaded only when a test lets it be.
SLOW = """
import os
from tamed import Service, plugin

open(f"reader-{os.getpid()}", "w").close()
open("gate").read()

@plugin
def slow():
    return Service("slow")
"""


@pytest.fixture
def reading(tamed: Tamed) -> Iterator[Command]:
    """A command to start a daemon, which never ends to read the options."""
    tamed.write("slow.py", SLOW)
    os.mkfifo(tamed.folder / "gate")
    with tamed.popen(
        "start", "--workers", "2", "slow", env={"TAMED_PLUGIN_PATH": str(tamed.folder)}
    ) as command:
        wait_for("the reader", lambda: readers(tamed))
        yield command


def readers(tamed: Tamed) -> list[int]:
    """Return the pid of the process that reads the command line, when it waits at the gate."""
    return [int(each.name.partition("-")[2]) for each in tamed.folder.glob("reader-*")]


def outcome(command: Command) -> tuple[int, str, str]:
    """Wait for the end of a command, and return its status and its output."""
    out, err = command.communicate(timeout=PATIENCE)
    return command.returncode, out, err


def begin(tamed: Tamed, program: str, *words: str) -> Command:
    """Start a daemon by a program that calls the command."""
    return Command(
        [sys.executable, str(tamed.write("command", program)), "start", *words],
        cwd=tamed.folder,
        env=tamed.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(tamed: Tamed, program: str) -> tuple[int, str, str]:
    """Start a daemon by a program that calls the command, and return the outcome."""
    with begin(tamed, program, "fastpoetry", "--port", "0") as command:
        return outcome(command)


def is_killed(tamed: Tamed, program: str) -> None:
    """Start a daemon by a program that has its command killed, which prints nothing."""
    assert run(tamed, program) == (-signal.SIGKILL, "", "")


def nothing_is_left(tamed: Tamed) -> None:
    """Wait until no process and no file of a daemon is left."""
    wait_for("the end of all processes", lambda: not tamed.processes())
    assert tamed.left() == {}


def test_an_interrupt_while_the_command_line_is_read_ends_all(tamed: Tamed, reading: Command) -> None:
    """Ctrl-C in the terminal reaches the command, which ends the others with it."""
    reading.send_signal(signal.SIGINT)
    assert outcome(reading) == (-signal.SIGINT, "", "")
    nothing_is_left(tamed)


def test_no_daemon_comes_up_for_a_command_that_was_killed(tamed: Tamed, reading: Command) -> None:
    """Nobody would learn that it runs."""
    reading.kill()
    assert outcome(reading)[0] == -signal.SIGKILL
    nothing_is_left(tamed)
    assert not (tamed.logs / "slow.log").exists()


KILLED_AT_ONCE = """
import os, signal, sys

fork = os.fork

def fork_and_be_killed():
    os.fork, command = fork, os.getpid()
    if fork():
        os.kill(command, signal.SIGKILL)
    while os.getppid() == command:
        pass
    return 0

os.fork = fork_and_be_killed
from tamed.cli.main import main
sys.exit(main())
"""


def test_a_command_may_be_killed_before_its_daemon_begins(tamed: Tamed) -> None:
    """Then the daemon ends, and prints nothing."""
    is_killed(tamed, KILLED_AT_ONCE)
    wait_for("the end of all", lambda: not tamed.processes())


KILLED_WITH_A_FOLDER = """
import os, select, signal, sys

mkdir, command = os.mkdir, os.getpid()

def make_and_kill(path, *arguments, **options):
    mkdir(path, *arguments, **options)
    if path == "fastpoetry":
        end = os.pidfd_open(command)
        os.kill(command, signal.SIGKILL)
        select.select([end], [], [])  # otherwise it may end after it is known that the daemon is awaited

os.mkdir = make_and_kill
from tamed.cli.main import main
sys.exit(main())
"""


def test_the_folder_is_removed_if_the_command_is_killed(tamed: Tamed) -> None:
    """The reader has made it, and the daemon learns of it from the plan."""
    is_killed(tamed, KILLED_WITH_A_FOLDER)
    assert tamed.rundir.is_dir()
    nothing_is_left(tamed)


INTERRUPTED_WITH_A_FOLDER = """
import os, signal, sys

mkdir, command = os.mkdir, os.getpid()

def make_and_interrupt(path, *arguments, **options):
    mkdir(path, *arguments, **options)
    if path == "fastpoetry":
        os.kill(command, signal.NAME)
        while True:
            signal.pause()

os.mkdir = make_and_interrupt
from tamed.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_folder_is_removed_at_an_interrupt(tamed: Tamed, number: signal.Signals) -> None:
    """The reader has told the command where it is, before it made it."""
    done = run(tamed, INTERRUPTED_WITH_A_FOLDER.replace("NAME", number.name))
    assert done == (-number, "", "")
    assert tamed.rundir.is_dir()
    assert tamed.left() == {}


INTERRUPTED_WHEN_READY = """
import os, signal, sys

read = os.read

def read_and_interrupt(descriptor, count):
    data = read(descriptor, count)
    if b'"ready"' in data:
        os.kill(os.getpid(), signal.SIGINT)
    return data

os.read = read_and_interrupt
from tamed.cli.main import main
sys.exit(main())
"""


def test_an_interrupt_after_the_report_changes_nothing(tamed: Tamed) -> None:
    """The daemon runs, and the command says so."""
    status, out, err = run(tamed, INTERRUPTED_WHEN_READY)
    assert (status, out.startswith("fastpoetry is ready: pid "), err) == (0, True, "")
    assert tamed("stop").status == 0


READY_WHEN_INTERRUPTED = """
import os, select, signal, sys

kill, command, log = os.kill, os.getpid(), os.environ["LOGS_DIRECTORY"] + "/app.log"

def kill_when_ready(pid, number):
    if os.getpid() == command and number == signal.SIGTERM:
        open("gate", "w").close()
        while not (os.path.exists(log) and "app is ready" in open(log).read()):
            select.select([], [], [], 0.01)
    kill(pid, number)

os.kill = kill_when_ready
from tamed.cli.main import main
sys.exit(main())
"""

READY_AT_LAST = """
import asyncio
from pathlib import Path
from tamed import Application, Service

class Gated(Service):
    async def start(self):
        Path("begun").touch()
        await asyncio.to_thread(Path("gate").read_text)

    async def stop(self):
        await asyncio.sleep(0.2)
        Path("stopped").touch()

application = Application("app", Gated("gated"))
"""


def test_a_daemon_that_becomes_ready_after_an_interrupt_is_stopped_in_order(tamed: Tamed) -> None:
    """The command waits for its end, and not only for the end of its reports."""
    os.mkfifo(tamed.folder / "gate")
    tamed.write("app.py", READY_AT_LAST)
    with begin(tamed, READY_WHEN_INTERRUPTED, "app.py") as command:
        wait_for("the start", (tamed.folder / "begun").exists)
        command.send_signal(signal.SIGINT)
        assert outcome(command) == (-signal.SIGINT, "", "")
    assert (tamed.folder / "stopped").exists()
    assert tamed.left() == {}


def test_no_daemon_becomes_ready_for_a_command_that_was_killed(tamed: Tamed) -> None:
    """Nobody would learn that it runs; the log has the reason."""
    os.mkfifo(tamed.folder / "gate")
    tamed.write("app.py", READY_AT_LAST)
    with tamed.popen("start", "app.py") as command:
        wait_for("the start", (tamed.folder / "begun").exists)
        command.kill()
        command.wait(PATIENCE)
    nothing_is_left(tamed)
    assert "the command that started the daemon has ended" in (tamed.logs / "app.log").read_text()


def test_the_death_of_the_reader_is_reported(tamed: Tamed, reading: Command) -> None:
    """It has printed nothing then, so the command says what has happened."""
    (reader,) = readers(tamed)
    os.kill(reader, signal.SIGKILL)
    why = "tamed: the process that reads the command line was ended by SIGKILL\n"
    assert outcome(reading) == (70, "", why)
    nothing_is_left(tamed)


def test_the_reader_ends_with_the_daemon(tamed: Tamed, reading: Command) -> None:
    """The command does not wait for what nobody needs any more."""
    (daemon,) = {*tamed.processes()} - {*readers(tamed), reading.pid}
    os.kill(daemon, signal.SIGKILL)
    assert outcome(reading) == (70, "", "it died before it was ready: killed by SIGKILL\n")
    nothing_is_left(tamed)


def test_a_reader_that_has_ended_before_the_supervisor_begins_is_reaped(
    tamed: Tamed, reading: Command
) -> None:
    """It does not become the template, since it has loaded a plugin."""
    (reader,) = readers(tamed)
    (daemon,) = (pid for pid in tamed.processes() if reader in [each.pid for each in children_of(pid)])
    os.kill(daemon, signal.SIGSTOP)
    with (tamed.folder / "gate").open("w"):
        tamed.write("open", "").replace(tamed.folder / "gate")  # for the worker
    wait_for("the end of the reader", lambda: not is_there(reader))
    os.kill(daemon, signal.SIGCONT)
    assert outcome(reading) == (0, f"slow is ready: pid {daemon}\n", "")
    wait_for("the reader to be reaped", lambda: reader not in [each.pid for each in children_of(daemon)])
    assert tamed("stop", "slow").status == 0


def test_a_mistake_has_its_status_where_the_ends_of_children_are_ignored(tamed: Tamed) -> None:
    """A program that started the command may have left SIGCHLD ignored."""
    ignoring = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    ignoring += "os.execv(sys.argv[1], sys.argv[1:])"
    tamed.before = [sys.executable, "-c", ignoring]
    done = tamed("start", "fastpoetry", "--prot", "0")
    assert done.status == 64
    assert done.err.startswith("tamed: unknown option '--prot'")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("options", ["", "-Xdev"])
def test_the_supervisor_is_a_process_of_the_command_if_that_has_no_options(
    tamed: Tamed, options: str
) -> None:
    """Otherwise it is executed; what it shows, holds and has loaded is the same."""
    script = str(Path(sys.executable).with_name("tamed"))
    command = [
        sys.executable,
        *options.split(),
        script,
        "start",
        "--workers",
        "2",
        "fastpoetry",
        "--port",
        "0",
    ]
    subprocess.run(command, cwd=tamed.folder, env=tamed.environment(), check=True, timeout=PATIENCE)
    (pid,) = (each for each in tamed.processes() if "tamed.supervisor" in live.words(each))
    assert ("-P" in live.words(pid)) is bool(options)
    assert live.session(pid) not in {pid, os.getsid(0)}
    assert "asyncio" not in Path(f"/proc/{pid}/maps").read_text()
    assert tamed("stop").status == 0
