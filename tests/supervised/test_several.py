"""Commands for several instances, and the list of all of them."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.supervised.daemon import NOBODY, Tamed, needs_root, read_poem, wait_for


def test_all_instances_are_listed(tamed: Tamed) -> None:
    """One line each, also those that were killed or stopped; the exit status is that of the least healthy."""
    ode = tamed.start_poetry("--name", "ode", "--workers", "2")
    haiku, lost = (tamed.start_poetry("--name", name) for name in ("haiku", "lost"))
    done = tamed("status")
    assert (done.status, done.err) == (0, "")
    head, *rows = (line.split() for line in done.out.splitlines())
    assert head[:5] == ["NAME", "STATE", "PID", "UP", "WORKERS"]
    assert [row[:3] for row in rows] == [[each.name, "running", str(each.pid)] for each in (haiku, lost, ode)]
    assert rows[2][4] == "2/2"
    assert rows[2][-1] == ode.addresses[0]
    assert tamed("stop", "haiku").status == 0
    assert tamed("status").status == 0
    orphans = set(lost.workers())
    lost.signal(signal.SIGKILL)
    lost.wait_gone()
    done = tamed("status", "--json")
    states = {each["name"]: each["state"] for each in json.loads(done.out)}
    assert (done.status, states) == (7, {"haiku": "stopped", "lost": "failed", "ode": "running"})
    wait_for("the end of its worker", lambda: not orphans & set(tamed.processes()))
    assert tamed("stop", "--all").status == 0


def test_what_has_stopped_or_failed_is_started_again(tamed: Tamed) -> None:
    """By restart, with its command line; also one whose supervisor was killed."""
    ode, haiku = (
        tamed.start_poetry("--name", name, "--workers", count)
        for name, count in (("ode", "2"), ("haiku", "1"))
    )
    assert tamed("stop", "ode").status == 0
    assert tamed("status", "ode").out.startswith("ode has stopped; tamed restart ode starts it again\n")
    haiku.signal(signal.SIGKILL)
    haiku.wait_gone()
    wait_for("the end of its workers", lambda: not tamed.processes())
    done = tamed("restart", "ode", "haiku")
    assert (done.status, done.out.count(" is ready: pid ")) == (0, 2), done
    for port in re.findall(r"127\.0\.0\.1:(\d+)\n", done.out):
        assert read_poem(int(port))
    assert ode.status()["wanted"] == 2
    assert not list(tamed.rundir.glob(".plans/*"))
    assert tamed("stop", "--all").status == 0


def test_restarts_wait_for_each_other(tamed: Tamed) -> None:
    """Each of them restarts it, so that each sees the files of its own moment; nothing is left of them."""
    tamed.start_poetry("--name", "ode")
    commands = [tamed.popen("restart", "ode") for _ in range(5)]
    outcomes = [command.communicate(timeout=PATIENCE) for command in commands]
    assert [command.returncode for command in commands] == [0] * 5, outcomes
    waits = {line for _, err in outcomes for line in err.splitlines()}
    assert waits == {"tamed: a restart is in progress; waiting for it to finish"}
    assert len({re.search(r"pid \d+", out)[0] for out, _ in outcomes}) == 5  # type: ignore[index]
    assert not list(tamed.rundir.glob(".plans/*"))
    assert tamed("stop", "ode").status == 0


def test_a_plan_of_another_user_is_not_started(tamed: Tamed) -> None:
    """A stopped instance is started only by the user whose plan it is."""
    if os.geteuid() != 0:
        pytest.skip("only root may give a file away")
    tamed.start_poetry()
    assert tamed("stop").status == 0
    os.chown(tamed.rundir / ".plans" / "fastpoetry.plan", 65534, 65534)
    done = tamed("restart", "fastpoetry")
    assert (done.status, done.out) == (77, "")
    assert "user 65534 started it" in done.err


def test_a_restart_that_fails_can_be_tried_again(tamed: Tamed) -> None:
    """The reason is reported as by a start, and that it is stopped now; nothing is left but the plan."""
    tamed.write("app.py", "from tamed import Application\napplication = Application('app')\n")
    tamed.start("app.py")
    tamed.write("app.py", "raise KeyError('rhyme')\n")
    done = tamed("restart")
    assert (done.status, done.out) == (70, "")
    assert "app.py raised while it was loaded: KeyError: 'rhyme'" in done.err
    now = "tamed: app is stopped now; remove the cause, then tamed restart app\n"
    assert done.err.endswith(f"\n{now}")
    assert tamed.left() == {}
    logs = tamed.logs.rename(tamed.folder / "other")
    tamed.write("logs", "no folder")
    done = tamed("restart", "app")
    assert (done.status, done.out, done.err.count("\n")) == (73, "", 2)
    assert done.err.endswith(f"\n{now}")
    assert tamed.left() == {}
    tamed.logs.unlink()
    logs.rename(tamed.logs)
    tamed.write("app.py", "from tamed import Application\napplication = Application('app')\n")
    assert tamed("restart", "app").status == 0
    assert tamed("stop").status == 0


def test_a_restart_that_is_interrupted_can_be_tried_again(tamed: Tamed) -> None:
    """Nothing is left but the plan."""
    tamed.write("app.py", "from tamed import Application\napplication = Application('app')\n")
    tamed.start("app.py")
    tamed.write("app.py", "open('begun', 'w').close()\nopen('gate').read()\n")
    os.mkfifo(tamed.folder / "gate")
    with tamed.popen("restart") as command:
        wait_for("the start", (tamed.folder / "begun").exists)
        command.send_signal(signal.SIGTERM)
        out, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, out, err) == (-signal.SIGTERM, "", "")
    assert tamed.left() == {}
    tamed.write("app.py", "from tamed import Application\napplication = Application('app')\n")
    assert tamed("restart", "app").status == 0
    assert tamed("stop").status == 0


@needs_root
def test_a_daemon_of_a_session_without_a_runtime_directory_is_named(public_tamed: Tamed) -> None:
    """One that cron has started, for example, is in another run directory than those of a login."""
    tamed = public_tamed
    place, runtime = tamed.folder / "tmp", tamed.folder / "runtime"
    for folder in (place, runtime):
        folder.mkdir(mode=0o700)
        os.chown(folder, NOBODY, NOBODY)
    tamed.before = [*tamed.before, "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    cron = {"TAMED_RUNDIR": "", "TMPDIR": str(place), "XDG_RUNTIME_DIR": ""}
    login = {**cron, "XDG_RUNTIME_DIR": str(runtime)}
    arguments: list[str | Path] = ["start", "--log", place / "log", "fastpoetry", "--port", "0"]
    done = tamed(*arguments, env=cron)
    assert done.status == 0, done
    there = f"running in {place}/tamed-{NOBODY}: fastpoetry; add --rundir {place}/tamed-{NOBODY}\n"
    nothing = f"tamed: nothing is running: there is no instance in {runtime}/tamed"
    for command, error in (
        (("status",), f"{nothing}; {there}"),
        (("reload", "fastpoetry"), f"tamed: fastpoetry is not running; {there}"),
    ):
        done = tamed(*command, env=login)
        assert (done.status, done.err) == (69, error)
    assert tamed("stop", env=cron).status == 0
    done = tamed("status", "fastpoetry", env=login)
    assert done.err == f"tamed: fastpoetry is not running; nothing runs in {runtime}/tamed\n"


def test_several_are_reloaded_and_stopped(tamed: Tamed) -> None:
    """A name that does not run is reported, and does not keep the others from it.

    A name may be left out while one instance runs; with none or several, the error lists them.
    """
    done = tamed("status")
    nothing = f"tamed: nothing is running: there is no instance in {tamed.rundir}\n"
    assert (done.status, done.err) == (69, nothing)
    for name in ("haiku", "ode"):
        tamed.start_poetry("--name", name)
    done = tamed("stop")
    assert (done.status, done.err) == (64, "tamed: several instances run: haiku, ode; name one of them\n")
    done = tamed("logs", "ballad")
    assert (done.status, done.err) == (69, "tamed: ballad is not running; running: haiku, ode\n")
    assert [each["name"] for each in json.loads(tamed("status", "--json").out)] == ["haiku", "ode"]
    done = tamed("reload", "haiku", "ode")
    assert done.status == 0
    assert done.out.splitlines() == [
        f"{name} was reloaded: generation 2, 1 worker" for name in ("haiku", "ode")
    ]
    done = tamed("stop", "--all", "ode")
    assert (done.status, done.err) == (64, "tamed: --all: ode is named, too; use one or the other\n")
    done = tamed("stop", "--all")
    assert (done.status, sorted(done.out.splitlines())) == (0, ["haiku has stopped", "ode has stopped"])
    assert tamed("restart", "ballad").status == 69
    assert tamed.left() == {}


def test_the_end_of_the_log_is_on_the_screen(tamed: Tamed) -> None:
    """So are a reload that has failed, and its time."""
    tamed.write("app.py", "from tamed import Application\napplication = Application('app')\n")
    daemon = tamed.start("app.py")
    tamed.write("app.py", "raise KeyError('rhyme')\n")
    assert tamed("reload").status == 70
    done = tamed("status", "app", "-n", "1")
    assert re.search(r"\nlast reload, at \d{4}-\S+: the reload failed: .*KeyError: 'rhyme'\n", done.out)
    last = done.out.splitlines()[-1]
    assert last in daemon.log
    assert done.status == 0
    daemon.stop()
