"""Daemons in hostile environments: no terminal, no standard streams, pid 1."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tamed.testing.process import TamedProcess
from tests.patience import PATIENCE
from tests.supervised.daemon import (
    POEM,
    Tamed,
    is_there,
    needs_root,
    read_poem,
    wait_for,
)
from tests.supervised.talk import APPLICATION, say


def on_terminal(tamed: Tamed, *arguments: str | Path) -> tuple[int, int]:
    """Run the command in its own session on a terminal; return its pid and our end of the terminal."""
    command = [sys.executable, "-m", "tamed", *map(str, arguments)]
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(tamed.folder)
            os.execve(command[0], command, tamed.environment())
        finally:
            os._exit(127)
    return pid, terminal


def read_line(terminal: int, part: str) -> str:
    """Read from the terminal up to a whole line with this text, and return that line."""
    shown = b""
    while not (found := re.search(rf".*{re.escape(part)}.*\n", shown.decode())):
        shown += os.read(terminal, 1000)
    return found[0]


def test_a_daemon_outlives_the_terminal_that_started_it(tamed: Tamed) -> None:
    """For example, the user logs out right after the start."""
    pid, terminal = on_terminal(tamed, "start", "fastpoetry", "--port", "0", "--poem", tamed.poem)
    shown = read_line(terminal, "fastpoetry is ready")
    port = int(shown.rpartition(":")[2])
    os.close(terminal)
    os.waitpid(pid, 0)
    assert read_poem(port) == POEM
    daemon = int((tamed.rundir / "fastpoetry/fastpoetry.pid").read_text())
    # A session of its own, which it does not lead: so no terminal that it opens becomes its own.
    assert os.getsid(daemon) not in (daemon, os.getsid(0))
    assert tamed("stop").status == 0
    assert tamed.left() == {}


@pytest.mark.parametrize("closed", [pytest.param("<&-", marks=pytest.mark.long), "<&- >&- 2>&-"])
def test_a_daemon_can_be_started_without_the_usual_descriptors(tamed: Tamed, closed: str) -> None:
    """None of its files gets the number of a standard stream."""
    command = f'exec "$0" -m tamed start fastpoetry --port 0 --poem poem.txt {closed}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable],
        cwd=tamed.folder,
        env=tamed.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    line = tamed("status").out.splitlines()[-1]
    assert read_poem(int(line.rpartition(":")[2])) == POEM
    pid = int((tamed.rundir / "fastpoetry/fastpoetry.pid").read_text())
    assert {Path(f"/proc/{pid}/fd/{number}").readlink() for number in range(3)} == {Path("/dev/null")}
    assert tamed("stop").status == 0
    assert tamed.left() == {}


def test_nobody_need_read_its_output(tamed: Tamed) -> None:
    """With a broken pipe as its output, it serves and stops on request; see also `process/test_output.py`."""
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["run", "--workers", "2", "--pid-file", "pid", "fastpoetry", "--port", "0", "--listen"]
    with tamed.popen(*arguments, "unix:sock", stdout=writing, stderr=writing) as process:
        os.close(writing)
        wait_for("the socket", lambda: _answers(tamed.folder / "sock"))
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert not (tamed.folder / "pid").exists()
    assert tamed.left() == {}


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return False
        return sock.makefile("rb").read().startswith(b"The Ecstasy")


@needs_root
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 0), pytest.param(signal.SIGQUIT, 128 + 3, marks=pytest.mark.long)],
)
def test_it_is_a_good_pid_1(tamed: Tamed, number: signal.Signals, status: int) -> None:
    """In a container it reaps orphans, and signals end it, although the kernel protects pid 1 from most."""
    tamed.write("app.py", APPLICATION)
    tamed.before = ["unshare", "--pid", "--fork", "--mount-proc"]
    log = tamed.folder / "log"
    with tamed.popen("run", "--workers", "2", "--log", log, "app.py") as process:
        wait_for("the start", lambda: log.exists() and "is ready" in log.read_text())
        text = log.read_text()
        assert " is ready: pid 1, listening on" in text
        port = int(text.rpartition("listening on 127.0.0.1:")[2].split()[0])
        for _ in range(5):
            assert say(port, b"orphan").rest == b"poem"
        wait_for("the reaping of all", lambda: _zombies(tamed) == [])
        (supervisor,) = [pid for pid in tamed.processes() if _pid_inside(pid) == 1]
        os.kill(supervisor, number)
        assert process.wait(PATIENCE) == status
    wait_for("the end of all", lambda: tamed.processes() == [])


STOPPED_EARLY = """
import os, signal
from tamed import Application, Service, plugin

if os.getpid() == 1:
    os.kill(1, signal.SIGTERM)

@plugin("early")
def early():
    return Application("early", Service("idle"))
"""


@needs_root
@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["alone", "workers"])
def test_a_pid_1_that_is_stopped_before_it_has_handlers_stops(tamed: Tamed, workers: tuple[str, ...]) -> None:
    """The kernel drops a signal with the default action for pid 1: the container would run on."""
    tamed.write("early.py", STOPPED_EARLY)
    tamed.before = ["unshare", "--pid", "--fork", "--mount-proc"]
    with tamed.popen("run", "--plugin-dir", ".", *workers, "early") as process:
        assert process.wait(PATIENCE) in (0, 128 + signal.SIGTERM)
    wait_for("the end of all", lambda: tamed.processes() == [])


STOPPED_AT_EXEC = """
import os, signal, sys

if "tamed.supervisor" in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_stop_while_the_supervisor_loads_is_as_any_other(tamed: Tamed) -> None:
    """It is not ended by the signal, without a line, in the time from its exec to its first handler."""
    early = tamed.folder / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(STOPPED_AT_EXEC)
    done = tamed("run", "--workers", "1", "fastpoetry", "--port", "0", env={"PYTHONPATH": str(early)})
    assert done.status == 0
    assert "SIGTERM: stopping" in done.err
    assert tamed.left() == {}


ORPHANS = """
import os, signal, subprocess
from pathlib import Path
from tamed import Application, Service

class Orphans(Service):
    async def start(self):
        print("pid", os.getpid())
        pid = int(subprocess.check_output(["sh", "-c", "exit 3 & echo $!"]))
        while Path(f"/proc/{pid}").exists():
            pass
        print("reaped; our own child's status:", subprocess.call(["sh", "-c", "exit 7"]))
        if Path("crash").exists():
            os.kill(os.getpid(), signal.SIGSEGV)

application = Application("app", Orphans("orphans"))
"""


def _without_workers(tamed: Tamed) -> TamedProcess:
    tamed.write("app.py", ORPHANS)
    tamed.before = ["unshare", "--pid", "--fork", "--mount-proc"]
    return tamed.foreground("run", "app.py")


@needs_root
@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 0, marks=pytest.mark.long),
        (signal.SIGHUP, 0),
        (signal.SIGQUIT, 128 + 3),
    ],
)
def test_a_process_without_workers_is_a_good_pid_1(tamed: Tamed, number: signal.Signals, status: int) -> None:
    """Strangers are reaped and their statuses mean nothing; every signal has the effect of any other day."""
    with _without_workers(tamed) as process:
        process.expect("our own child's status: 7")
        process.expect("app is ready")
        (first,) = [pid for pid in tamed.processes() if _pid_inside(pid) == 1]
        os.kill(first, number)
        assert process.wait() == status
    wait_for("the end of all", lambda: tamed.processes() == [])


@needs_root
def test_a_crash_is_the_status_of_pid_1(tamed: Tamed) -> None:
    """The status is 128 plus the number of the signal that ended the application, as in a shell."""
    tamed.write("crash", "")
    with _without_workers(tamed) as process:
        assert process.wait() == 128 + signal.SIGSEGV


def _pid_inside(pid: int) -> int:
    """Return the pid that a process has in its innermost namespace, 0 if it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(re.findall(r"^NSpid:.*\t(\d+)$", status, re.MULTILINE)[0])


def _zombies(tamed: Tamed) -> list[int]:
    """Return the children of the supervisor that have ended and were not reaped."""
    (supervisor,) = [pid for pid in tamed.processes() if _pid_inside(pid) == 1]
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(child) for child in children if not is_there(int(child))]


def test_the_development_mode_of_python_finds_nothing_in_a_life(tamed: Tamed) -> None:
    """No process of the daemon leaves a socket or a file unclosed over a start, a reload and an upgrade."""
    env = {"PYTHONDEVMODE": "1"}
    command = ("start", "--workers", "1", "fastpoetry", "--port", "0", "--poem", tamed.poem)
    with tamed.popen(*command, env=env) as start:
        out, err = start.communicate(timeout=PATIENCE)
    assert (start.returncode, err) == (0, ""), out
    for words in (["reload"], ["upgrade"], ["stop"]):
        assert tamed(*words).status == 0
    log = (tamed.logs / "fastpoetry.log").read_text()
    assert "ResourceWarning" not in log, log
    assert "Traceback" not in log, log


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ((), 0, r"Usage: tamed [OPTIONS] [COMMAND] \u2026"),
        (("check", "verse.toml"), 0, r"v\xe9rs            Application"),
        (
            ("start", "verse.toml"),
            78,
            r"the encoding of file names, ascii, has no '\xe9'; use a locale with UTF-8",
        ),
    ],
    ids=["help", "check", "start"],
)
def test_a_locale_without_utf_8_is_enough(
    tamed: Tamed, words: tuple[str, ...], status: int, text: str
) -> None:
    """What it cannot show is escaped, and a name that no file can have is an error of one line."""
    tamed.write("verse.toml", 'name = "v\\u00e9rs"\n[services.a]\nplugin = "fastpoetry"\n')
    env = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    with tamed.popen(*(words or ["--help"]), env=env) as command:
        out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == status, err
    assert text in (err if status else out)
    assert err.count("\n") == bool(status)
