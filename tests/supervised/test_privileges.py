"""Daemons that root starts and that run as another user."""

import os
import random
import stat
import subprocess
from pathlib import Path

import pytest

from tests.supervised import opened
from tests.supervised.daemon import NOBODY, POEM, Tamed, needs_root, read_poem

pytestmark = needs_root

# It tries to become root again, from within and by a set-uid program, and says what came of it.
APPLICATION = """
import logging, os, shutil, subprocess, threading
from tamed import Application, Service, StreamServer

log = logging.getLogger("app")

async def greet(reader, writer):
    writer.write(b"hello")

class Climber(Service):
    async def start(self):
        try:
            os.setuid(0)
        except PermissionError:
            log.info("setuid(0) is refused")
        threading.Thread(target=self.wait, daemon=True).start()
        for number in range(100):
            log.info("a line that is long enough to fill a log, number %d", number)

    def wait(self):
        threading.Event().wait()

application = Application("app", StreamServer("127.0.0.1:{port}", greet), Climber("climber"))
"""


def status_of(task: Path) -> dict[str, str]:
    """Return the fields of a thread's status by their names."""
    lines = (task / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def threads(tamed: Tamed) -> list[dict[str, str]]:
    """Return the status of every thread of every process that the test has started."""
    return [status_of(task) for pid in tamed.processes() for task in Path(f"/proc/{pid}/task").iterdir()]


def is_free(port: int) -> bool:
    """Return whether no socket listens on a port, on any interface."""
    done = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True)
    return not done.stdout


@pytest.fixture
def low_port() -> int:
    """A free privileged port; not always the same one, because other tests need one, too."""
    ports = random.SystemRandom().sample(range(80, 1024), k=100)
    return next(port for port in ports if is_free(port))


def test_nothing_of_a_daemon_stays_root(public_tamed: Tamed, low_port: int) -> None:
    """Every thread runs as nobody without capabilities; log, pid file and socket belong to nobody."""
    tamed = public_tamed
    tamed.write("app.py", APPLICATION.replace("{port}", str(low_port)))
    daemon = tamed.start("--user", "nobody", "--workers", "2", "--log-rotate", "2 kB", "app.py")
    assert daemon.port == low_port
    assert read_poem(low_port) == b"hello"
    assert "running as root" not in daemon.log

    found = threads(tamed)
    assert len(found) >= 1 + 2 * 2
    for thread in found:
        assert thread["Uid"].split() == [str(NOBODY)] * 4
        assert set(thread["Gid"].split()) == {str(NOBODY)}
        assert set(thread["Groups"].split()) <= {str(NOBODY)}
        assert {thread[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert thread["NoNewPrivs"] == "1"

    logs = sorted(daemon.log_file.parent.glob("app.log*"))
    assert len(logs) > 3  # it was rotated, by nobody
    assert {log.stat().st_uid for log in logs} == {NOBODY}
    assert {stat.S_IMODE(log.stat().st_mode) for log in logs} == {0o640}
    control = (daemon.folder / "app.sock").stat()
    assert (control.st_uid, stat.S_IMODE(control.st_mode)) == (NOBODY, 0o600)
    assert daemon.status()["pid"] == daemon.pid
    daemon.stop()


def test_what_a_daemon_keeps_is_kept_by_its_workers(public_tamed: Tamed, low_port: int) -> None:
    """Later workers have a kept capability, too."""
    tamed = public_tamed
    daemon = tamed.start(
        "--user", "nobody", "--keep-capability", "cap_net_bind_service", "fastpoetry", "--port", str(low_port)
    )
    (worker,) = daemon.workers()
    os.kill(worker, 9)
    daemon.wait_workers(1, without=[worker])
    for thread in threads(tamed):
        assert thread["CapEff"] == thread["CapBnd"] == f"{1 << 10:016x}"
    assert read_poem(low_port).startswith(b"The Ecstasy")
    daemon.stop()


def test_a_reload_does_not_need_the_environment_file_of_root(public_tamed: Tamed) -> None:
    """Only root may read it, and the daemon is root no more."""
    public_tamed.write("env", "WORD=a\n").chmod(0o600)
    daemon = public_tamed.start_poetry("--user", "nobody", "--env-file", "env")
    done = public_tamed("reload")
    assert (done.status, done.out.count("\n"), done.err) == (0, 1, "")
    daemon.stop()


def test_a_user_that_has_changed_takes_a_restart(public_tamed: Tamed) -> None:
    """A reload reports this, and the new workers run as the former user."""
    text = 'name = "verse"\n[services.a]\nplugin = "fastpoetry"\nport = 0\n[daemon]\nuser = "{user}"\n'
    public_tamed.write("verse.toml", text.format(user="nobody"))
    daemon = public_tamed.start("verse.toml")
    public_tamed.write("verse.toml", text.format(user="daemon"))
    done = public_tamed("reload")
    assert done.status == 0
    assert done.out.endswith("\nwarning: user has changed and needs a restart\n")
    daemon.expect_log("user has changed and needs a restart")
    (worker,) = daemon.workers()
    assert status_of(Path(f"/proc/{worker}"))["Uid"].split() == [str(NOBODY)] * 4
    assert read_poem(daemon.port).startswith(b"The Ecstasy")
    daemon.stop()


def test_files_that_could_not_be_written_later_are_refused_at_once(public_tamed: Tamed) -> None:
    """They are refused before there is a daemon, with the reason."""
    tamed = public_tamed
    own = tamed.folder / "own"
    own.mkdir(mode=0o755)
    for option, name in (("--log", "log"), ("--pid-file", "pid")):
        done = tamed("start", "--user", "nobody", option, own / f"app.{name}", "fastpoetry", "--port", "0")
        assert done.status == 77
        assert done.err == (
            f"tamed: {name} file {own}/app.{name}: user nobody cannot write in {own}; "
            "give it to nobody, or use another\n"
        )
    assert tamed.left() == {}


@pytest.mark.skipif(opened.closed_directory() is None, reason="every user can reach this interpreter")
@pytest.mark.parametrize("command", [["start"], ["run", "--workers", "2"]])
def test_a_user_who_cannot_reach_the_interpreter_is_refused(public_tamed: Tamed, command: list[str]) -> None:
    """The start is refused, because no worker could be replaced later."""
    tamed = public_tamed
    tamed.before = []
    done = tamed(*command, "--user", "nobody", "fastpoetry", "--port", "0")
    assert done.status == 77
    assert done.err.startswith("tamed: user nobody cannot run this Python: ")
    assert done.err.count("\n") == 1
    assert tamed.processes() == []


def test_a_daemon_can_be_started_as_another_user_than_before(public_tamed: Tamed) -> None:
    """Its folders and its log, which belong to the former user, are given to the new one.

    In a directory like ``/tmp`` only the owner can remove a file, so a pid file there is given to the user.
    """
    shared = public_tamed.folder / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    pid_file = shared / "app.pid"
    for user, uid in (("nobody", NOBODY), ("daemon", 1)):
        daemon = public_tamed.start_poetry("--user", user, "--log-rotate", "200", "--pid-file", str(pid_file))
        found = (daemon.folder, daemon.log_file.parent, daemon.log_file, pid_file)
        assert {path.stat().st_uid for path in found} == {uid}
        daemon.stop()
        assert not pid_file.exists()
        assert len(list(daemon.log_file.parent.iterdir())) > 1
    public_tamed.start_poetry().stop()


def test_root_does_not_run_what_another_user_says(public_tamed: Tamed) -> None:
    """A plan that does not belong to root, or is in the daemon's folder, is refused; nothing is stopped.

    Root restarts what root has started, and binds the port again.
    """
    daemon = public_tamed.start_poetry("--user", "nobody")
    plan = public_tamed.rundir / ".plans" / "fastpoetry.plan"
    assert (plan.stat().st_uid, plan.parent.stat().st_uid) == (0, 0)
    assert stat.S_IMODE(plan.stat().st_mode) == 0o600
    kept = plan.rename(daemon.folder / plan.name)
    done = public_tamed("restart")
    assert (done.status, done.err.count("\n")) == (66, 1), done
    plan.parent.mkdir(mode=0o755, exist_ok=True)
    kept.rename(plan)
    os.chown(plan, NOBODY, NOBODY)
    done = public_tamed("restart")
    assert (done.status, done.err.count("\n")) == (77, 1)
    assert f"user {NOBODY} started it" in done.err
    assert read_poem(daemon.port) == POEM
    os.chown(plan, 0, 0)
    done = public_tamed("restart")
    assert done.status == 0, done
    pid = int((daemon.folder / "fastpoetry.pid").read_text())
    assert pid != daemon.pid
    assert status_of(Path(f"/proc/{pid}"))["Uid"].split() == [str(NOBODY)] * 4
    assert public_tamed("stop").status == 0
    assert public_tamed.left() == {}


def test_running_as_root_is_warned_of_once(public_tamed: Tamed) -> None:
    """Running as root is logged, also in the foreground, unless an option requests it."""
    warning = "WARNING tamed: running as root; drop privileges with --user NAME"
    daemon = public_tamed.start_poetry("--workers", "2")
    assert daemon.log.count(warning) == 1
    daemon.stop()
    for options, count in ((["--user", "root"], 0), ([], 1)):
        with public_tamed.foreground("run", *options, "fastpoetry", "--port", "0") as process:
            process.expect("fastpoetry is ready")
            assert process.output.count(warning) == count


def test_a_daemon_of_another_user_cannot_be_stopped(public_tamed: Tamed) -> None:
    """Another user gets an error."""
    daemon = public_tamed.start_poetry()
    daemon.folder.chmod(0o755)
    public_tamed.before = [
        *public_tamed.before,
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]
    done = public_tamed("stop")
    assert done.status == 77
    assert f"cannot send SIGTERM to process {daemon.pid}: Operation not permitted" in done.err
    assert public_tamed("status").status == 77
    public_tamed.before = []
    daemon.stop()
