"""By which plan root starts a daemon again: by the latest of its own, whatever the daemon's user does."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.supervised.daemon import NOBODY, Tamed, needs_root, wait_for

pytestmark = needs_root

SETPRIV = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def capabilities(pid: int) -> str:
    """Return what a process may do beyond its user."""
    return Path(f"/proc/{pid}/status").read_text().partition("CapEff:")[2].split()[0]


def restarted(tamed: Tamed) -> int:
    """Restart as root; return the pid."""
    done = tamed("restart", "fastpoetry")
    assert done.status == 0, done
    found = re.search(r"pid (\d+)", done.out)
    assert found is not None
    return int(found[1])


def test_the_user_cannot_bring_an_older_plan_of_roots_back(public_tamed: Tamed) -> None:
    """A capability that root has taken away stays away: what is in the user's folder is not asked."""
    daemon = public_tamed.start_poetry("--user", "nobody", "--keep-capability", "cap_net_raw")
    plans = public_tamed.rundir / ".plans"
    older = shutil.copy2(plans / "fastpoetry.plan", public_tamed.folder)
    daemon.stop()
    daemon = public_tamed.start_poetry("--user", "nobody")
    # The user can have kept the very file, which is root's, by another name or by its folder.
    Path(older).rename(daemon.folder / "fastpoetry.plan")
    assert capabilities(restarted(public_tamed)) == "0" * 16
    assert public_tamed("stop").status == 0
    assert capabilities(restarted(public_tamed)) == "0" * 16  # root keeps the plan of what has stopped
    assert public_tamed("stop").status == 0


def test_a_plan_that_was_left_behind_is_not_that_of_another_daemon(public_tamed: Tamed) -> None:
    """One that the user has started under the name of root's is not started anew as root's was."""
    tamed = public_tamed
    daemon = tamed.start_poetry("--user", "nobody")
    os.kill(daemon.pid, signal.SIGTERM)
    daemon.wait_gone()
    wait_for("the end of all", lambda: not tamed.processes())
    assert (tamed.rundir / ".plans" / "fastpoetry.plan").exists()
    daemon.folder.mkdir(exist_ok=True)
    os.chown(daemon.folder, NOBODY, NOBODY)
    as_nobody = Tamed(tamed.folder, before=[*tamed.before, *SETPRIV])
    log = daemon.folder / "fastpoetry.log"
    own = as_nobody.start_poetry("--log", str(log))
    done = tamed("restart", "fastpoetry")
    assert (done.status, done.err.count("\n")) == (77, 1), done
    assert f"is not the plan of process {own.pid}" in done.err
    assert own.status()["pid"] == own.pid
    assert tamed("stop", "fastpoetry").status == 0
    as_nobody.close()


@pytest.mark.parametrize("hook", ["before", "after"])
def test_a_start_that_fails_leaves_no_plan(public_tamed: Tamed, hook: str) -> None:
    """Also if the supervisor was not root any more."""
    fail = "raise RuntimeError('no')\n" if hook == "before" else ""
    public_tamed.write(
        "app.py",
        f"""{fail}from tamed import Application, Service

class Failing(Service):
    async def start(self):
        raise RuntimeError("no")

application = Application("app", Failing("failing"))
""",
    )
    assert public_tamed("start", "--user", "nobody", "app.py").status == 70
    assert public_tamed.left() == {}
