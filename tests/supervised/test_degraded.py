"""A daemon that has lost workers: it serves with the others, tries again, and reports its state."""

import json
import os
import re
import signal

import pytest

from tests.supervised.daemon import Daemon, Tamed, wait_for
from tests.supervised.talk import say

FRAGILE = """
import os, sys, time
from pathlib import Path
from tamed import Application, StreamServer

async def recite(reader, writer):
    writer.write(b"%d\\n" % os.getpid())
    if await reader.readline() == b"exit\\n":
        application.exit(5)
    writer.write(b"poem")

if Path("leaves").exists():
    sys.exit(int(Path("leaves").read_text()))
if Path("broken").exists():
    time.sleep(float(Path("broken").read_text()))
    raise KeyError("rhyme")
application = Application("app", StreamServer("127.0.0.1:0", recite))
"""


def failures(daemon: Daemon) -> int:
    """Return the number of failed attempts to replace a worker of the broken application."""
    return len(re.findall(r"ERROR tamed: worker \d+ failed: .*KeyError: 'rhyme'", daemon.log))


def test_failing_replacements_leave_those_that_serve_alone(tamed: Tamed) -> None:
    """It is degraded, serves, and recovers when the application is repaired."""
    tamed.write("app.py", FRAGILE)
    daemon = tamed.start("--workers", "2", "app.py")
    broken = tamed.write("broken", "0")
    lost, healthy = daemon.workers()
    os.kill(lost, signal.SIGKILL)
    wait_for("several failures", lambda: failures(daemon) >= 4)
    status = daemon.status()
    assert (status["state"], status["ready"], status["wanted"]) == ("degraded", 1, 2)
    told = tamed("status", "app")
    assert told.status == 4
    assert re.match(r"app is degraded: pid \d+, up [\d:]+, 1 of 2 workers ready\n", told.out)
    assert status["last_error"].endswith("app.py raised while it was loaded: KeyError: 'rhyme'")
    assert say(daemon.port, b"hello").worker == healthy
    broken.unlink()
    daemon.wait_workers(2, without=[lost])
    assert healthy in daemon.workers()
    assert daemon.status()["state"] == "running"
    daemon.stop()


def test_a_daemon_none_of_whose_workers_starts_is_failing(tamed: Tamed) -> None:
    """It is failing while attempts are left, and running after a successful one."""
    tamed.write("app.py", FRAGILE)
    daemon = tamed.start("--workers", "1", "app.py")
    broken = tamed.write("broken", "0")
    os.kill(daemon.workers()[0], signal.SIGKILL)
    wait_for("several failures", lambda: failures(daemon) >= 3)
    told = tamed("status", "app")
    assert (told.status, told.out.startswith("app is failing: ")) == (5, True), told
    broken.unlink()
    daemon.wait_workers(1)
    assert tamed("status").status == 0
    daemon.stop()


@pytest.mark.parametrize("status", [0, pytest.param(3, marks=pytest.mark.long)])
def test_a_replacement_that_exits_while_it_is_loaded_has_failed(tamed: Tamed, status: int) -> None:
    """A release that exits lies there when the only worker dies: the daemon waits for a better one."""
    tamed.write("app.py", FRAGILE)
    daemon = tamed.start("--workers", "1", "app.py")
    leaves = tamed.write("leaves", str(status))
    os.kill(daemon.workers()[0], signal.SIGKILL)
    why = f"the application ended before it was ready, with status {status}"
    wait_for("several failures", lambda: daemon.log.count(why) >= 3)
    told = daemon.status()
    assert (told["state"], why in told["last_error"]) == ("failing", True)
    leaves.unlink()
    daemon.wait_workers(1)
    assert tamed("status").status == 0
    daemon.stop()


@pytest.mark.long
def test_a_daemon_whose_workers_all_fail_slowly_ends(tamed: Tamed) -> None:
    """The number of attempts ends it, not their duration; its status is that of the last one."""
    tamed.write("app.py", FRAGILE)
    daemon = tamed.start("--workers", "1", "app.py")
    tamed.write("broken", "1")
    os.kill(daemon.workers()[0], signal.SIGKILL)
    for attempt in range(1, 9):
        wait_for(f"failure {attempt}", lambda: failures(daemon) >= attempt)  # noqa: B023 - called at once
        told = tamed("status", "app")
        assert (told.status, told.out.startswith("app is failing: ")) == (5, True), told
    daemon.expect_log(r"KeyError: 'rhyme'; no worker serves, and no attempt is left: stopping")
    daemon.wait_gone()
    told = tamed("status", "app")
    assert told.status == 7
    assert re.match(
        r"app has failed at \d{4}-\d\d-\d\dT\S+[+-]\d\d:\d\d, with exit status 70: worker \d+ failed: "
        r"app\.py raised while it was loaded: KeyError: 'rhyme'\n",
        told.out,
    )


def test_a_daemon_that_has_ended_by_itself_says_so(tamed: Tamed) -> None:
    """Its status, its log and its error are known until the next start."""
    tamed.write("app.py", FRAGILE)
    daemon = tamed.start("--workers", "1", "app.py")
    say(daemon.port, b"exit")
    daemon.wait_gone()
    told = tamed("status", "-n", "0", "app")
    assert told.status == 7
    assert re.fullmatch(
        r"app has failed at \d{4}-\d\d-\d\dT\S+[+-]\d\d:\d\d, with exit status 5: .+\n"
        rf"its log is {re.escape(str(daemon.log_file))}\n",
        told.out,
    )
    assert re.search(r"app +failed ", tamed("status").out)
    record = json.loads(tamed("status", "--json", "app").out)
    assert (record["state"], record["status"], record["log"]) == ("failed", 5, str(daemon.log_file))
    logs = tamed("logs", "app")
    assert (logs.status, logs.err) == (0, told.out)
    assert "the application ends, with status 5" in logs.out
    daemon = tamed.start("--workers", "1", "app.py")
    assert tamed("status").status == 0
    daemon.stop()
    assert tamed("status", "app").status == 69


def test_a_supervisor_that_was_killed_has_failed(tamed: Tamed) -> None:
    """Its pid file shows this until the next start."""
    daemon = tamed.start_poetry()
    daemon.signal(signal.SIGKILL)
    daemon.wait_gone()
    told = tamed("status", "-n", "0", daemon.name)
    assert told.status == 7
    assert told.out.startswith(
        "fastpoetry has failed: it was killed, or the system crashed: it left its pid file"
    )
    assert tamed("logs", daemon.name).err == told.out
    assert tamed("why").out == tamed("why", daemon.name).out
    assert "the last start" in tamed("why").out
    wait_for("the end of its worker", lambda: not tamed.processes())
    tamed.start_poetry().stop()
    assert tamed("status", daemon.name).status == 69
