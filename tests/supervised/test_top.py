"""`tamed top` in a real terminal, tmux's, which a test can read."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervised.daemon import Tamed, wait_for

APPLICATION = """
import logging
from pathlib import Path
from tamed import Application, Service


class Store(Service):
    check_interval = 0.1

    async def start(self):
        logging.getLogger("store").info("opened")

    async def check(self):
        return "the disk is full" if Path("full").exists() else None


application = Application("verse", Store("store"))
"""


class Terminal:
    """A terminal in which the command runs."""

    def __init__(self, tamed: Tamed) -> None:
        self._tamed = tamed
        self._socket = tamed.folder / "none"

    def run(self, *arguments: str, **environment: str) -> None:
        """Run the command, and show its exit status when it has ended."""
        command = shlex.join([sys.executable, "-m", "tamed", *arguments])
        self._begin(f"{command}; echo it ended with $?; exec cat", **environment)

    def run_as_job(self, *arguments: str) -> None:
        """Run the command as a job of an interactive shell."""
        self._begin("exec bash --norc -i")
        self.press("-l", shlex.join([sys.executable, "-m", "tamed", *arguments]))
        self.press("Enter")

    def _begin(self, shell: str, **environment: str) -> None:
        self._socket = self._tamed.folder / f"tmux-{uuid.uuid4().hex[:8]}"  # the last one may be ending
        self._tmux("new-session", "-d", "-x", "120", "-y", "30", shell, **environment)

    def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        self._tmux("send-keys", *keys)

    def wait_for(self, text: str) -> str:
        """Wait until it shows a text; return all that it shows."""
        return wait_for(f"{text!r} on the screen", lambda: shown if text in (shown := self._text()) else "")

    def close(self) -> None:
        """End it, with the command."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False, capture_output=True)

    def _text(self) -> str:
        return self._tmux("capture-pane", "-p", "-J")

    def _tmux(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            ["tmux", "-f", "/dev/null", "-S", self._socket, *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd=self._tamed.folder,
            env=self._tamed.environment({"LANG": "C.UTF-8", "TERM": "xterm", **environment}),
        )
        return done.stdout


@pytest.fixture
def terminal(tamed: Tamed) -> Iterator[Terminal]:
    """A terminal."""
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux")
    made = Terminal(tamed)
    yield made
    made.close()


def test_top_shows_a_daemon_as_it_changes(tamed: Tamed, terminal: Terminal) -> None:
    """Well, degraded, reloaded; a worker's stacks and log; and the end of the daemon."""
    tamed.write("verse.py", APPLICATION)
    daemon = tamed.start("--workers", "2", "verse.py")
    terminal.run("top")
    shown = terminal.wait_for("2 of 2 workers ready")
    assert "verse is running" in shown
    assert all(str(pid) in shown for pid in daemon.workers())
    full = tamed.write("full", "")
    terminal.wait_for("verse is degraded")
    terminal.wait_for("the check of store fails: the disk is full")
    full.unlink()
    terminal.wait_for("verse is running")
    killed = daemon.workers()[0]
    os.kill(killed, signal.SIGKILL)
    terminal.wait_for("1 restart")
    terminal.press("s")
    terminal.wait_for("thread MainThread")
    terminal.press("q", "l")
    terminal.wait_for("INFO store: opened")
    terminal.press("q", "r")
    terminal.wait_for("reload verse? y or n")
    terminal.press("y")
    terminal.wait_for("verse was reloaded: generation 2, 2 workers")
    terminal.press("/", "x", "y", "z")
    assert "verse  " not in terminal.wait_for("filter: xyz")
    terminal.press("Enter", "q")
    terminal.wait_for("it ended with 0")
    terminal.close()
    daemon.stop()


def test_top_of_a_name_says_that_the_daemon_is_gone(tamed: Tamed, terminal: Terminal) -> None:
    """The command continues, since the daemon may come back, and says how it has ended, as the status does.

    Without the daemon at the start, or without the extra, it is one line with the remedy.
    """
    terminal.run("top", "verse")
    assert "tamed: verse is not running" in terminal.wait_for("it ended with 69")
    terminal.close()
    tamed.write("verse.py", APPLICATION)
    daemon = tamed.start("--workers", "1", "verse.py")
    folder = tamed.folder / "without"
    folder.mkdir()
    (folder / "prompt_toolkit.py").write_text('raise ModuleNotFoundError("no", name="prompt_toolkit")\n')
    terminal.run("top", PYTHONPATH=str(folder))
    shown = terminal.wait_for("it ended with 78")
    assert "tamed top: prompt_toolkit is not installed; pip install 'tamed[top]'" in shown
    terminal.close()
    terminal.run("top", "verse")
    terminal.wait_for("1 of 1 workers ready")
    daemon.signal(signal.SIGKILL)
    how = "verse has failed: it was killed, or the system crashed: it left its pid file behind"
    terminal.wait_for(how)
    terminal.press("q")
    terminal.wait_for("it ended with 0")
    terminal.close()
    terminal.run("top", "verse")
    assert f"tamed: {how}; its log is {daemon.log_file}" in terminal.wait_for("it ended with 69")
    terminal.close()
    other = tamed.start("--name", "ode", "verse.py")
    terminal.run("top")
    assert how in terminal.wait_for("1 of 1 workers ready")
    terminal.press("q")
    terminal.wait_for("it ended with 0")
    assert tamed("stop", other.name).status == 0


def test_top_can_be_suspended(tamed: Tamed, terminal: Terminal) -> None:
    """Ctrl-Z gives the terminal back to the shell, with what was on it; it goes on in the foreground."""
    tamed.write("verse.py", APPLICATION)
    tamed.start("--workers", "1", "verse.py")
    terminal.run_as_job("top", "verse")
    terminal.wait_for("1 of 1 workers ready")
    terminal.press("C-z")
    assert "1 of 1 workers ready" not in terminal.wait_for("Stopped")
    terminal.press("fg; echo it ended with $?", "Enter")
    terminal.wait_for("1 of 1 workers ready")
    terminal.press("q")
    terminal.wait_for("it ended with 0")
    assert tamed("stop", "verse").status == 0


def test_top_needs_a_terminal(tamed: Tamed) -> None:
    """Without, it names the command that does without."""
    done = tamed("top")
    assert (done.status, done.out) == (64, "")
    assert done.err == "tamed: tamed top: it needs a terminal; use tamed status --watch\n"
    assert not Path(tamed.rundir).exists()
