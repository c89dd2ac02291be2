"""Workers that are forked from a template, which has loaded the application."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.supervised.daemon import Tamed, wait_for
from tests.supervised.talk import APPLICATION, connected, finish

LOADED = (
    """
import os
with open("loaded", "a") as file:
    file.write("once\\n")
"""
    + APPLICATION
)


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_the_application_is_loaded_once_for_all_workers(tamed: Tamed) -> None:
    """This applies to later workers, too; all are the supervisor's children, and serve like others."""
    tamed.write("app.py", LOADED)
    daemon = tamed.start("--preload", "--workers", "2", "app.py")
    workers = daemon.workers()
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    workers = daemon.wait_workers(2, without=[workers[0]])
    assert tamed("scale", "3").status == 0
    for pid in workers:
        assert re.search(r"\0tamed\.worker\0app\0\d\0+$", _command(pid))
        assert f"\nPPid:\t{daemon.pid}\n" in Path(f"/proc/{pid}/status").read_text()
        assert os.getpgid(pid) == pid
    assert (tamed.folder / "loaded").read_text() == "once\n"
    with connected(daemon.port) as (worker, sock):
        assert worker in daemon.workers()
        assert finish(sock, b"print") == b"poem", daemon.log
    daemon.expect_log(rf"output\[{worker}\]: printed\n")
    daemon.stop()


def test_a_reload_loads_it_anew(tamed: Tamed) -> None:
    """The new generation loads it once; the old template ends, and a failing one replaces none."""
    app = tamed.write("app.py", LOADED)
    daemon = tamed.start("--preload", "--workers", "2", app)
    old = daemon.workers()
    assert tamed("reload").status == 0
    daemon.wait_workers(2, without=old)
    assert (tamed.folder / "loaded").read_text() == "once\n" * 2
    wait_for("the end of the old ones", lambda: len(tamed.processes()) == 4)
    app.write_text("syntax error")
    done = tamed("reload")
    assert done.status == 70
    assert "SyntaxError" in done.err
    assert len(daemon.workers()) == 2
    app.write_text(LOADED)
    assert tamed("upgrade").status == 0
    wait_for("the end of the old ones", lambda: len(tamed.processes()) == 4)
    daemon.stop()


def test_threads_make_it_unsafe(tamed: Tamed) -> None:
    """Threads are refused, with their names and a remedy."""
    thread = "threading.Thread(target=time.sleep, args=[3600], name='ticker', daemon=True)"
    tamed.write("app.py", f"import threading, time\n{thread}.start()\n" + APPLICATION)
    done = tamed("start", "--preload", "app.py")
    assert (done.status, done.out) == (78, "")
    assert done.err == (
        "tamed: --preload: the application has started threads while it was loaded (ticker); "
        "start them in a service's start hook, or run it without --preload\n"
    )
    assert tamed.left() == {}


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("import nothing_of_this_name", 70, "nothing_of_this_name"),
        ("import os; os._exit(9)", 70, "the process that loads the application ended with status 9"),
        ("raise SystemExit(5)", 5, "status 5"),
    ],
)
def test_an_application_that_cannot_be_loaded_fails_the_start(
    tamed: Tamed, text: str, status: int, why: str
) -> None:
    """The start fails as without a template; nothing is left."""
    tamed.write("app.py", text)
    done = tamed("start", "--preload", "app.py")
    assert (done.status, done.out) == (status, "")
    assert why in done.err
    assert tamed.left() == {}


def test_a_template_that_has_died_is_started_again(tamed: Tamed) -> None:
    """The daemon logs it, and goes on serving; the new template loads the application."""
    tamed.write("app.py", LOADED)
    daemon = tamed.start("--preload", "app.py")
    (worker,) = daemon.workers()
    (template,) = set(tamed.processes()) - {worker, daemon.pid}
    os.kill(template, signal.SIGKILL)
    daemon.expect_log("the template of the workers was ended by SIGKILL")
    os.kill(worker, signal.SIGKILL)
    daemon.wait_workers(1, without=[worker])
    assert (tamed.folder / "loaded").read_text() == "once\n" * 2
    daemon.stop()
