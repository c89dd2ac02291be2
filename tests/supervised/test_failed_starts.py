"""Failed starts: the whole reason on the terminal, the right status, and nothing left."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import Done, Tamed, wait_for

APPLICATION = """
import asyncio, sys, time
from tamed import Application, Service

class Verse(Service):
    async def start(self):
        {statement}

application = Application("app", Verse("verse"))
"""


class Fault(NamedTuple):
    """A way to fail, and its expected outcome."""

    target: list[str]
    status: int
    says: str
    log_says: str = ""
    application: str = ""


FAULTS = {
    "the port is taken": Fault(
        ["fastpoetry", "--port", "PORT"], 69, r"tamed: .*cannot listen on localhost:\d+: .* is in use; .*"
    ),
    "the poem is missing": Fault(
        ["fastpoetry", "--port", "0", "--poem", "none.txt"],
        66,
        r"tamed: service fastpoetry/poetry failed in start: cannot read the poem none.txt: .*; use a .*",
    ),
    "an async start raises": Fault(
        ["app.py"],
        70,
        r"Traceback \(most recent call last\):\n"
        r'  File ".*app.py", line 7, in start\n'
        r"(?:    .*\n)+"
        r"KeyError: 'rhyme'\n"
        r"tamed: service verse failed in start: KeyError: 'rhyme'",
        application="raise KeyError('rhyme')",
    ),
    "the code cannot be loaded": Fault(
        ["app.py"],
        70,
        r"(?s).*SyntaxError.*\ntamed: .*app.py raised while it was loaded: SyntaxError.*",
        "",
        "if",
    ),
    "it hangs": Fault(
        ["--start-timeout", "2s", "app.py"],
        70,
        r"tamed: app was not ready after 2 s(?:: (?:worker \d+ is (?:loading|starting|prepared)(?:, )?)+)?",
        application="await asyncio.sleep(3600)",
    ),
    "it exits": Fault(
        ["app.py"],
        3,
        r"tamed: the application ended before it was ready, with status 3",
        "service verse asked to exit with status 3",
        "sys.exit(3)",
    ),
}
WAYS = {
    "solo": ["run"],
    "with workers": ["run", "--workers", "2"],
    "daemon": ["start"],
    "daemon with workers": ["start", "--workers", "2"],
}


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which a socket listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("what", "way"),
    [
        ("the port is taken", "daemon with workers"),
        ("the poem is missing", "daemon"),
        ("an async start raises", "daemon"),
        pytest.param("an async start raises", "with workers", marks=pytest.mark.long),
        ("the code cannot be loaded", "daemon"),
        ("it hangs", "solo"),
        ("it hangs", "daemon with workers"),
        ("it exits", "solo"),
        ("it exits", "daemon"),
    ],
)
def test_a_start_that_fails_says_why(tamed: Tamed, taken_port: int, what: str, way: str) -> None:
    """The reason is on stderr once, the status is that of the reason, and nothing is left."""
    fault = FAULTS[what]
    tamed.write("app.py", APPLICATION.format(statement=fault.application))
    target = [str(taken_port) if word == "PORT" else word for word in fault.target]
    done = tamed(*WAYS[way], "--log-level", "warning", *target)
    assert done.out == ""
    assert done.status == fault.status
    lines = "\n".join(line for line in done.err.splitlines() if "WARNING tamed: running as root" not in line)
    if what == "it exits" and way == "solo":
        assert lines == ""  # the application's own wish is no error; its log tells, at level info
    else:
        assert re.fullmatch(fault.says, lines), lines
    if "daemon" in way:
        (log,) = tamed.logs.rglob("*.log")
        # In the log only the first line of a record is not indented, and each record names Tamed anyway.
        told = re.sub("(?m)^tamed: ", "", lines).replace("\n", "\n    ")
        assert f"CRITICAL tamed: {told}\n" in log.read_text()
    assert tamed.left() == {}


def test_a_start_that_blocks_is_ended_by_force(tamed: Tamed) -> None:
    """A worker that cannot undo its start in time is ended, and the log has its stacks."""
    tamed.write("app.py", APPLICATION.format(statement="time.sleep(3600)"))
    done = tamed("start", "--start-timeout", "12s", "--log", "app.log", "app.py")
    assert done.status == 70
    assert re.fullmatch(r"tamed: app was not ready after 12 s: worker \d+ is starting\n", done.err)
    log = (tamed.folder / "app.log").read_text()
    assert re.search(r"does not stop: its stacks follow", log)
    assert re.search(r'output\[\d+\]:   File ".*app.py", line 7 in start', log)
    assert tamed.left() == {}


def test_what_fails_before_there_is_a_daemon_leaves_nothing(tamed: Tamed) -> None:
    """The instance's directory does not exist either."""
    done = tamed("start", "--user", "nobody-of-this-name", "fastpoetry")
    assert done.status == 78
    assert done.err.startswith("tamed: user nobody-of-this-name: the system has no such user")
    done = tamed("start", "--log", "stderr", "fastpoetry")
    assert (done.status, done.err.count("\n")) == (64, 1)
    done = tamed("start", "--log", "none/of/these.log", "fastpoetry")
    assert (done.status, done.err.count("\n")) == (73, 1)
    done = tamed("start", "--chroot", "/", "fastpoetry")
    assert (done.status, done.err.count("\n")) == (78, 1)
    done = tamed("start", "--log", "syslog:nowhere", "fastpoetry")
    assert (done.status, done.err.count("\n")) == (78, 1)
    assert list(tamed.rundir.rglob("*")) == []


def test_ctrl_c_while_waiting_takes_the_daemon_down(tamed: Tamed) -> None:
    """The half-started daemon has ended when the command ends."""
    tamed.write(
        "app.py", APPLICATION.format(statement="print('begun', flush=True); await asyncio.sleep(3600)")
    )
    log = tamed.logs / "app.log"
    with tamed.begin("start", "app.py") as command:
        wait_for("the start", lambda: log.exists() and "begun" in log.read_text())
        command.send_signal(signal.SIGINT)
        out, _ = command.communicate(timeout=PATIENCE)
    assert out == ""
    assert command.returncode == -signal.SIGINT
    assert tamed.left() == {}


def test_a_daemon_that_is_asked_to_stop_before_it_is_ready_says_so(tamed: Tamed) -> None:
    """The waiting command reports the failure."""
    tamed.write(
        "app.py", APPLICATION.format(statement="print('begun', flush=True); await asyncio.sleep(3600)")
    )
    log = tamed.logs / "app.log"
    with tamed.begin("start", "app.py") as command:
        wait_for("the start", lambda: log.exists() and "begun" in log.read_text())
        os.kill(int((tamed.rundir / "app" / "app.pid").read_text()), signal.SIGTERM)
        out, err = command.communicate(timeout=PATIENCE)
    done = Done(command.returncode, out, err)
    assert done == (70, "", "tamed: app was asked to stop before it was ready\n")
    assert tamed.left() == {}


def test_a_worker_that_cannot_be_executed_says_so(tamed: Tamed) -> None:
    """The report has the worker's exit code, and the log has its output."""
    tamed.write("app.py", "import os\nos.write(2, b'last words\\n')\nos.abort()\n")
    done = tamed("start", "app.py")
    assert done.status == 70
    assert re.fullmatch(r"tamed: worker \d+ was ended by SIGABRT before it was ready\n", done.err)
    log = (tamed.logs / "app.log").read_text()
    assert re.search(r"output\[\d+\]: last words\n", log)
    assert re.search(r'output\[\d+\]:   File ".*app.py", line 3', log)


@pytest.mark.parametrize("way", ["solo", "daemon with workers"])
def test_an_application_that_is_done_before_it_is_ready_is_no_error(tamed: Tamed, way: str) -> None:
    """The status of the daemon and of the command is 0."""
    tamed.write("app.py", APPLICATION.format(statement="sys.exit()"))
    with tamed.popen(*WAYS[way], "app.py", stdout=subprocess.DEVNULL) as command:
        command.communicate(timeout=PATIENCE)
    assert command.returncode == 0
    assert tamed.left() == {}
