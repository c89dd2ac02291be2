"""The files of a run directory are removed: the daemon creates them again, and no second one starts."""

import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tamed.unix.pidfile import PidFile
from tests.supervised.daemon import NOBODY, POEM, Daemon, Tamed, needs_root, read_poem, wait_for


def remove_files(daemon: Daemon) -> None:
    """Remove all files, but not the folder."""
    for path in daemon.folder.iterdir():
        path.unlink()


SWEEPS: dict[str, Callable[[Daemon], object]] = {
    "files": remove_files,
    "folder": lambda daemon: shutil.rmtree(daemon.folder),
    "run directory": lambda daemon: shutil.rmtree(daemon.folder.parent),
    "renamed folder": lambda daemon: daemon.folder.rename(daemon.folder.parent / "elsewhere"),
}


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Suspend a supervisor."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def files_of(daemon: Daemon) -> dict[str, tuple[int, int]]:
    """Return the modes and owners of an instance's folder and of its files, except the log."""
    found = [daemon.folder, *daemon.folder.iterdir()] if daemon.folder.is_dir() else []
    # What begins with a dot is a file that is being written, and gets its name when it is whole.
    status = {path.name: path.lstat() for path in found if ".log" not in path.name and path.name[0] != "."}
    return {name: (stat.S_IMODE(each.st_mode), each.st_uid) for name, each in status.items()}


def whole_log(daemon: Daemon) -> str:
    """Return the content of the log, also of renamed files."""
    return "".join(path.read_text() for path in daemon.tamed.folder.rglob("*.log"))


def sweep_away(daemon: Daemon, what: str) -> None:
    """Remove the files while the supervisor is suspended; a second start finds the first."""
    with stopped(daemon.pid):
        SWEEPS[what](daemon)
        done = daemon.tamed("start", "fastpoetry", "--port", "0", "--poem", daemon.tamed.poem)
        assert (done.status, done.err.count("\n")) == (75, 1), (what, done)
        assert f"process {daemon.pid} runs" in done.err


def test_what_was_swept_away_is_made_anew(tamed: Tamed) -> None:
    """Owners and modes are the same; each time is logged once, also after an upgrade."""
    daemon = tamed.start_poetry("--log", tamed.folder / "the.log")
    workers, before = daemon.workers(), files_of(daemon)
    for times, what in enumerate([*SWEEPS, "upgrade", "run directory"]):
        if what == "upgrade":
            assert tamed("upgrade").status == 0
            workers = daemon.workers()
            continue
        plan = (daemon.folder / "fastpoetry.plan").read_text()
        sweep_away(daemon, what)
        assert daemon.workers() == workers  # which waits until it can be asked
        wait_for(f"all that was swept: {what}", lambda: files_of(daemon) == before)
        assert (daemon.folder / "fastpoetry.plan").read_text() == plan
        assert (daemon.folder / "fastpoetry.pid").read_text() == f"{daemon.pid}\n"
        assert daemon.status()["warnings"] == []
        told = whole_log(daemon).count("fastpoetry.pid was missing and was created again")
        assert told == times + (times < len(SWEEPS)), what
    assert tamed("stop", "fastpoetry").status == 0
    shutil.rmtree(daemon.folder.parent / "elsewhere", ignore_errors=True)
    assert tamed.left() == {}


def test_commands_find_a_daemon_whose_folder_was_just_swept(tamed: Tamed) -> None:
    """Commands find it by its name, also immediately after the removal."""
    daemon = tamed.start_poetry()
    before = files_of(daemon)
    for command in ("status", "reload", "restart", "stop"):  # the test above upgrades
        wait_for("what was swept before", lambda: files_of(daemon) == before)
        shutil.rmtree(tamed.rundir)
        assert tamed(command, daemon.name).status == 0, command


def test_a_file_that_is_anothers_is_replaced(tamed: Tamed) -> None:
    """A foreign socket or pid file in the place of the daemon's does not hide it."""
    daemon = tamed.start_poetry()
    control, pid_file = daemon.folder / "fastpoetry.sock", daemon.folder / "fastpoetry.pid"
    with stopped(daemon.pid), socket.socket(socket.AF_UNIX) as other:
        control.unlink()
        pid_file.unlink()
        other.bind(str(control))
        pid_file.write_text("1\n")
    done = tamed("status", daemon.name)  # it waits while nobody listens there
    assert done.status == 0, done
    wait_for("the pid file", lambda: pid_file.read_text() == f"{daemon.pid}\n")
    daemon.stop()


def test_what_cannot_be_made_anew_is_said_while_that_lasts(tamed: Tamed) -> None:
    """It is logged once; when the obstacle is gone, all files are created."""
    daemon = tamed.start_poetry("--log", tamed.folder / "the.log")
    with stopped(daemon.pid):
        shutil.rmtree(daemon.folder)
        daemon.folder.write_text("in the way")
    wait_for("the warning", lambda: "cannot be created again" in whole_log(daemon))
    assert tamed("start", "fastpoetry", "--port", "0").status in (73, 75)
    daemon.folder.unlink()
    assert len(daemon.workers()) == 1
    assert whole_log(daemon).count("cannot be created again") == 1
    daemon.stop()


# Every interpreter of ours imports it first. The supervisor finds what the end of another one leaves.
REMOVES = """
import os, sys
if "tamed.supervisor" in open("/proc/self/cmdline").read().split("\\0"):
    os.rmdir("{folder}")
"""


def test_a_folder_that_the_end_of_another_removes_is_made_anew(tamed: Tamed) -> None:
    """A start that meets the end of a daemon of its name does not fail for that."""
    early = tamed.folder / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(REMOVES.format(folder=tamed.rundir / "fastpoetry"))
    daemon = tamed.start_poetry(env={"PYTHONPATH": f"{early}:{os.environ.get('PYTHONPATH', '')}"})
    assert stat.S_IMODE(daemon.folder.stat().st_mode) in (0o700, 0o755)
    daemon.stop()


@needs_root
def test_a_start_that_fails_leaves_the_swept_folder_of_one_that_runs(public_tamed: Tamed) -> None:
    """The daemon could not create it again in a directory of root."""
    daemon = public_tamed.start_poetry("--user", "nobody")
    with stopped(daemon.pid):
        for path in daemon.folder.iterdir():
            path.unlink()
        done = public_tamed("start", "--user", "nobody", "fastpoetry", "--port", "0")
        assert (done.status, done.err.count("\n")) == (75, 1), done
        assert daemon.folder.is_dir()
    wait_for("the socket", lambda: public_tamed("status", daemon.name).status == 0)
    daemon.stop()


@needs_root
def test_a_daemon_that_has_become_another_user_makes_anew_what_it_may(public_tamed: Tamed) -> None:
    """The folder is created where that is possible, root's plan is not; the daemon is still found."""
    tamed = public_tamed
    own = tamed.folder / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    tamed.rundir.mkdir()
    tamed.rundir.chmod(0o1777)
    daemon = tamed.start_poetry("--user", "nobody", "--log", own / "the.log")
    before = files_of(daemon)
    shutil.rmtree(daemon.folder)
    wait_for("all that was swept", lambda: files_of(daemon) == before)
    assert daemon.status()["warnings"] == []
    shutil.rmtree(tamed.rundir / ".plans")
    wait_for("the warning", lambda: daemon.status()["warnings"])
    (warning,) = daemon.status()["warnings"]
    assert "only user 0, who started the daemon, can write it" in warning
    tamed.rundir.chmod(0o755)
    shutil.rmtree(daemon.folder)
    wait_for("the reason", lambda: f"directory {daemon.folder} is missing" in whole_log(daemon))
    done = tamed("start", "--user", "nobody", "fastpoetry", "--port", "0")
    assert done.status == 75
    assert read_poem(daemon.port) == POEM
    daemon.stop()


@needs_root
def test_a_stranger_who_has_the_name_is_neither_believed_nor_in_the_way(tmp_path: Path) -> None:
    """Any user may bind an abstract socket of any name: then only the pid file's lock counts."""
    path = tmp_path / "verse.pid"
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(f"\0tamed/0{path}"[:108])
        pid = os.fork()
        if pid == 0:
            os.setuid(NOBODY)
            squatter.listen()  # whose it is, is told by who listens
            os.kill(os.getpid(), signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        try:
            with PidFile.acquire(path) as held:
                assert held.intact
                assert held.guard is None
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_the_pid_file_of_a_process_on_its_own_is_made_anew(tamed: Tamed) -> None:
    """``tamed run --pid-file`` is found by its pid file, too; meanwhile a second one is refused."""
    pid_file = tamed.folder / "app.pid"
    arguments = ["run", "--pid-file", "app.pid", "fastpoetry", "--port", "0"]
    with tamed.foreground(*arguments) as process:
        process.expect("is ready")
        with stopped(process.pid):
            pid_file.unlink()
            done = tamed(*arguments)
            assert (done.status, done.err.count("\n")) == (75, 1), done
            assert f"process {process.pid} runs" in done.err
        wait_for("the pid file", pid_file.exists)
        process.expect("app.pid was missing and was created again")
        assert pid_file.read_text() == f"{process.pid}\n"
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert not pid_file.exists()
