"""How a supervisor's reaper handles orphans, with real processes."""

import subprocess
import sys

from tests.patience import PATIENCE

BEGINNING = """
import atexit, os, signal
from tamed._os.syscalls import be_subreaper
from tamed.unix.reaper import Reaper

def stray():
    \"\"\"Leave a process in a session of its own; return its pid when it is there.\"\"\"
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.write(writing, b"%d" % os.getpid())
        while True:
            signal.pause()
    return int(os.read(reading, 20))

def worker(*, goes_on):
    \"\"\"Start a leader of a group that leaves a stray; return the pids of both.\"\"\"
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.setpgid(0, 0)
        if goes_on:
            if (middle := os.fork()) == 0:
                os.write(writing, b"%d" % stray())
                os._exit(0)
            os.waitpid(middle, 0)
            os.write(writing, b".")
            signal.pause()
        os.write(writing, b"%d." % stray())
        os._exit(0)
    workers.append(pid)
    said = b""
    while not said.endswith(b"."):
        said += os.read(reading, 20)
    atexit.register(os.kill, int(said[:-1]), signal.SIGKILL)
    return pid, int(said[:-1])

workers = []
be_subreaper(True)
reaper = Reaper(workers.__contains__, print, 60.0)
"""


def _run(script: str) -> None:
    command = [sys.executable, "-c", BEGINNING + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_a_worker_leaves_is_not_spared_by_a_look_before_its_end_is_seen() -> None:
    """If a worker has ended but is not reaped when another becomes ready, its orphan is still ended."""
    _run(
        """
pid, left = worker(goes_on=False)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
reaper.settle()
assert list(reaper.ended()) == [(pid, 0)]
assert reaper.strays == [left]
"""
    )


def test_what_was_let_go_before_is_spared_once_those_that_ended_are_reaped() -> None:
    """A check that was skipped because another child had ended is repeated when that child is reaped."""
    _run(
        """
pid, left = worker(goes_on=True)
short = os.fork() or os._exit(0)
os.waitid(os.P_PID, short, os.WEXITED | os.WNOWAIT)
reaper.settle()
assert list(reaper.ended()) == [(short, 0)]
os.kill(pid, signal.SIGKILL)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
assert list(reaper.ended()) == [(pid, signal.SIGKILL)]
assert reaper.strays == []
"""
    )
