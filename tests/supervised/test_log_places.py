"""Where the log of a daemon is by default, and that `tamed logs` finds it there."""

import os
import re
import shutil
import signal
import socket
from pathlib import Path

from tests.supervised.daemon import NOBODY, Tamed, needs_root, wait_for


def test_systemds_folder_for_logs_is_used(tamed: Tamed) -> None:
    """The first of several is used, and created if it is missing; the log stays there after the end."""
    logs = tamed.folder / "one" / "logs"
    env = {"LOGS_DIRECTORY": f"{logs}:{tamed.folder}/other"}
    tamed.start_poetry(env=env)
    for runs in (True, False):
        done = tamed("logs", "fastpoetry", env=env)
        assert "is ready" in done.out
        assert (logs / "fastpoetry.log").read_text().endswith(done.out)
        assert tamed("stop").status == (0 if runs else 69)


@needs_root
def test_a_user_has_the_log_in_the_state_folder(public_tamed: Tamed) -> None:
    """It is ``XDG_STATE_HOME``, or ``~/.local/state``; a created folder is closed to other users."""
    tamed = public_tamed
    home = tamed.folder / "home"
    for folder in (home, tamed.rundir):
        folder.mkdir()
        os.chown(folder, NOBODY, NOBODY)
    tamed.before = [*tamed.before, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    for given, place in ((f"{home}/state", home / "state"), ("", home / ".local/state")):
        env = {"LOGS_DIRECTORY": "", "XDG_STATE_HOME": given, "HOME": str(home)}
        daemon = tamed.start_poetry(env=env)
        assert daemon.status()["log"] == f"{place}/tamed/fastpoetry.log"
        assert (place / "tamed").stat().st_mode & 0o777 == 0o700
        assert "is ready" in tamed("logs", env=env).out
        daemon.stop()


@needs_root
def test_a_number_without_a_home_needs_a_place_for_the_log(public_tamed: Tamed) -> None:
    """It has no entry in the user database, as in many containers; its home is the root then."""
    tamed, number = public_tamed, 1_234_567
    tamed.rundir.mkdir()
    os.chown(tamed.rundir, number, number)
    tamed.before = [*tamed.before, "setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]
    env = {"LOGS_DIRECTORY": "", "XDG_STATE_HOME": "", "HOME": ""}
    done = tamed("start", "fastpoetry", "--port", "0", env=env)
    refused = "tamed: directory /.local/state/tamed: Permission denied; use another place with --log\n"
    assert (done.status, done.err) == (77, refused)
    daemon = tamed.start_poetry("--log", tamed.rundir / "poetry.log", env=env)
    assert "is ready" in tamed("logs", env=env).out
    daemon.stop()


@needs_root
def test_root_has_the_log_in_var_log(public_tamed: Tamed) -> None:
    """The folder belongs to root; a daemon of another user has its own folder in it."""
    tamed, name = public_tamed, f"tamed-test-{os.getpid()}"
    folder = Path("/var/log/tamed")
    was_there = folder.exists()
    try:
        options: list[str]
        for options, log in (
            ([], folder / f"{name}.log"),
            (["--user", "daemon"], folder / name / f"{name}.log"),
        ):
            done = tamed(
                "start", "--name", name, *options, "fastpoetry", "--port", "0", env={"LOGS_DIRECTORY": ""}
            )
            assert done.status == 0, done
            assert "is ready" in log.read_text()
            assert (folder.stat().st_uid, folder.stat().st_mode & 0o022) == (0, 0)
            assert tamed("stop", name).status == 0
            assert "stopping" in tamed("logs", name, env={"LOGS_DIRECTORY": ""}).out
    finally:
        tamed("stop", name)
        for path in folder.glob(f"{name}.log*"):  # with that of its events
            path.unlink()
        shutil.rmtree(folder / name, ignore_errors=True)
        if not (was_there or any(folder.iterdir())):
            folder.rmdir()


def test_a_log_whose_folder_is_gone_goes_on_in_a_new_one(tamed: Tamed) -> None:
    """Whether it was removed or renamed, and also after a reload, whose plan has the same place."""
    daemon = tamed.start_poetry()
    for sweep in ("removed", "renamed"):
        if sweep == "removed":
            shutil.rmtree(tamed.logs)
        else:
            assert tamed("reload").status == 0
            tamed.logs.rename(tamed.folder / "elsewhere")
        wait_for(f"the log, whose folder was {sweep}", daemon.log_file.exists)
        daemon.expect_log("logs was missing and was created again")
        daemon.signal(signal.SIGUSR1)
        daemon.expect_log("SIGUSR1: the log was reopened")
    daemon.stop()


def test_reopening_is_answered_with_what_became_of_it(tamed: Tamed) -> None:
    """The log is reopened when the command returns; after a failure, it goes on in the old file.

    A failure is told to whoever asks, as long as it lasts; then the number of lost lines is logged.
    """
    daemon = tamed.start_poetry()
    log, moved = daemon.log_file, tamed.folder / "moved.log"
    log.rename(moved)
    done = tamed("reopen")
    assert done == (0, f"fastpoetry has reopened its log: {log}\n", ""), done
    assert log.exists()
    daemon.expect_log("reopen: the log was reopened")
    log.rename(moved)
    log.mkdir()
    done = tamed("reopen", "fastpoetry")
    assert (done.status, done.out) == (73, "")
    assert re.fullmatch(r"tamed: cannot reopen the log .*: it is not a regular file.*\n", done.err), done
    wait_for("the warning", lambda: "cannot reopen" in moved.read_text())
    log.rmdir()
    assert tamed("reopen", daemon.folder / "fastpoetry.pid").status == 0
    shutil.rmtree(tamed.logs)
    tamed.logs.write_text("in the way")
    daemon.signal(signal.SIGUSR1)
    wait_for("the warning", lambda: daemon.status()["warnings"])
    assert "warning: cannot reopen the log" in tamed("status", daemon.name).out
    assert "warning: cannot reopen the log" in tamed("reload").out
    tamed.logs.unlink()
    wait_for("the log", lambda: log.exists() and not daemon.status()["warnings"])
    daemon.expect_log(r"\d+ lines were lost between")
    daemon.stop()


def test_an_instance_without_a_log_file_has_nothing_to_reopen(tamed: Tamed) -> None:
    """Both such an instance and one that does not run give an error."""
    arguments = ["run", "--name", "verse", "--workers", "1", "fastpoetry", "--port", "0"]
    with tamed.foreground(*arguments) as process:
        process.expect("is ready")
        done = tamed("reopen", "verse")
        assert done == (66, "", "tamed: verse has no log file\n"), done
    assert tamed("reopen", "verse").status == 69


def test_a_syslog_daemon_that_is_missing_is_in_the_status(tamed: Tamed) -> None:
    """As in a container, where its log would be seen nowhere; not any more when one takes the messages."""
    place = tamed.folder / "syslog"
    daemon = tamed.start_poetry("--log", f"syslog:unix:{place}")
    wait_for("the warning", lambda: daemon.status()["warnings"])
    told = f"cannot send the log to the syslog daemon at {place}: nothing listens there, or it is too slow"
    assert f"warning: {told}\n" in tamed("status", daemon.name).out
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(place))
        wait_for("the end of the warning", lambda: not daemon.status()["warnings"])
        assert b"fastpoetry" in syslog.recv(9999)
    daemon.stop()


def test_log_of_ones_own_is_found_after_the_end(tamed: Tamed) -> None:
    """With its events, after a stop or a kill; and not the log of an earlier daemon of its name."""
    former = tamed.start_poetry()
    former.stop()
    former.log_file.with_name("fastpoetry.log.events").unlink()
    own = tamed.folder / "own.log"
    daemon = tamed.start_poetry("--log-file", "own.log")
    assert tamed("stop", daemon.name).status == 0
    shown = tamed("logs", daemon.name).out
    assert shown
    assert own.read_text().endswith(shown)
    assert "fastpoetry is ready" in tamed("events", daemon.name).out
    assert "the last start, at" in tamed("why", daemon.name).out
    assert tamed("restart", daemon.name).status == 0
    os.kill(daemon.status()["pid"], signal.SIGKILL)
    wait_for("the end", lambda: not tamed.processes())
    assert f"its log is {own}\n" in tamed("status", daemon.name).out
    own.unlink()
    assert f"{own}: No such file or directory" in tamed("logs", daemon.name).err
    assert "the last start, at" in tamed("why", daemon.name).out
    own.with_name("own.log.events").unlink()
    assert "it has not been ready yet, as far as is known" in tamed("why", daemon.name).out
