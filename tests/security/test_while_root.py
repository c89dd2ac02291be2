"""What root starts for another user: it runs nothing of that user's, and leaves nothing of its own to it."""

import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.builtin.terminal import Terminal
from tests.patience import PATIENCE
from tests.security import live
from tests.supervised.daemon import NOBODY, Tamed, is_there, needs_root, wait_for

pytestmark = needs_root

# It tries what a program can do with a terminal and with descriptors that it should not have.
PRYING = """
import fcntl, os, stat, termios
from tamed import Application, Service

def tried(name, call):
    try:
        call()
    except OSError as error:
        print(name, "refused", error.errno, flush=True)
    else:
        print(name, "DONE", flush=True)

def names(process):
    return [os.readlink(f"/proc/{process}/fd/{each}") for each in os.listdir(f"/proc/{process}/fd")]

class Prier(Service):
    async def start(self):
        tried("tty", lambda: os.open("/dev/tty", os.O_RDWR))
        for descriptor in (0, 1, 2):
            tried("type", lambda: fcntl.ioctl(descriptor, termios.TIOCSTI, b"#"))
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                found = os.fstat(int(descriptor))
            except OSError:
                continue
            if stat.S_ISDIR(found.st_mode) or "secret" in os.readlink(f"/proc/self/fd/{descriptor}"):
                print("open", descriptor, flush=True)
        print("tried all", flush=True)

application = Application("app", Prier("prier"))
"""


def roots_processes(tamed: Tamed) -> list[int]:
    """Return the pids of what was started and is root, but for the command that waits."""
    return [
        pid
        for pid in tamed.processes()
        if live.is_root(pid) and b"tamed\0start" not in (Path(f"/proc/{pid}/cmdline").read_bytes())
    ]


@pytest.mark.parametrize(
    "command",
    [["start", "--preload"], ["run"]],
    ids=" ".join,
)
def test_no_process_that_is_root_has_anything_of_the_users(
    public_tamed: Tamed, home: Path, command: list[str]
) -> None:
    """Only its user loads the application; root's processes have no path, file or home of that user."""
    env = {"HOME": str(home), "PYTHONPATH": str(home), "TAMED_RUNDIR": str(public_tamed.rundir)}
    with public_tamed.popen(*command, "--user", "nobody", "app.py", cwd=home, env=env) as process:
        uids = home / "uids"
        wait_for("the application", lambda: uids.exists() and uids.read_text())
        roots = roots_processes(public_tamed)
        assert roots, "the supervisor is root until all is prepared"
        for pid in roots:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
            assert f"HOME={home}" not in environment
            assert not [each for each in environment if each.startswith("PYTHON")]
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            assert {"-s", "-E"} <= set(words), words
            used = Path(f"/proc/{pid}/maps").read_text()
            opened = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
            assert str(home) not in used
            assert [each for each in opened if each.startswith(str(home))] == []
        (home / "go").touch()
        if command[0] == "start":
            assert process.wait(timeout=PATIENCE) == 0
        else:
            wait_for("the drop", lambda: not roots_processes(public_tamed))
            process.terminate()
            assert process.wait(timeout=PATIENCE) == 0
    assert {tuple(line.split()[:2]) for line in uids.read_text().splitlines()} == {(str(NOBODY),) * 2}
    assert str(home) not in uids.read_text()
    if command[0] == "start":
        assert public_tamed("stop", "app").status == 0


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["one", "two"])
def test_a_terminal_of_roots_is_out_of_reach(public_tamed: Tamed, workers: list[str]) -> None:
    """The service can neither open it, nor type into it, nor read it, and Ctrl-C ends the run as ever."""
    public_tamed.write("app.py", PRYING)
    # A shell between, as there is when a person types it: it leads the session, and has the terminal.
    tamed = [sys.executable, "-P", "-m", "tamed", "run"]
    words = [*public_tamed.before, *tamed, *workers, "--user", "nobody", "app.py"]
    script = f"trap : INT; cd {public_tamed.folder}; {' '.join(words)}; echo ended with $?"
    with Terminal("sh", "-c", script, env=public_tamed.environment()) as terminal:
        count = 2 if "2" in workers else 1
        # What workers print and what the supervisor says come in any order.
        shown = terminal.expect(rf"(?s)(?=.*is ready)(?:.*tried all){{{count}}}").string
        assert shown.count("tty refused 6") == count
        assert len(re.findall(r"type refused \d+", shown)) == 3 * count
        assert "DONE" not in shown
        pids = [pid for pid in public_tamed.processes() if live.status_of(pid)["Name"] != "sh"]
        for pid in pids:
            assert live.status_of(pid)["Uid"].split() == [str(NOBODY)] * 4
            assert live.terminal(pid) == 0
            terminals = [each for each in live.descriptors(pid) if each.target.startswith("/dev/pts/")]
            assert [each for each in terminals if each.can_read] == []
        terminal.type("\x03")
        terminal.expect("ended with 0")
    assert not any(map(is_there, pids))


@pytest.mark.parametrize("workers", [["--workers", "2"], ["--chroot", "/"]], ids=["two", "chroot"])
def test_roots_descriptors_are_not_passed_on(public_tamed: Tamed, workers: list[str]) -> None:
    """A file that root had open is open in no process of the daemon's, nor is any folder."""
    secret = public_tamed.write("secret", "of root's")
    secret.chmod(0o600)
    public_tamed.write("app.py", PRYING)
    ours, theirs = socket.socketpair()  # as of an agent that has root's keys
    descriptor = os.open(secret, os.O_RDONLY)
    with (
        ours,
        theirs,
        os.fdopen(descriptor),
        secret.open() as standard_input,
        public_tamed.popen(
            *("run", *workers, "--user", "nobody", "app.py"),
            pass_fds=[descriptor, theirs.fileno()],
            stdin=standard_input,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "app is ready" in line:
                break
        passed = {str(secret), f"socket:[{os.fstat(theirs.fileno()).st_ino}]"}
        for pid in public_tamed.processes():
            opened = []
            with suppress(FileNotFoundError):  # it has ended
                opened = live.descriptors(pid)
            assert [each for each in opened if each.is_directory or each.target in passed] == []
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0
    assert [line for line in lines if "open " in line] == []
