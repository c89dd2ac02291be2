"""Files that root opens where others may write: none is given away, and none keeps a daemon waiting."""

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.supervised.daemon import NOBODY, Tamed, needs_root, wait_for

pytestmark = needs_root

# It waits while it is loaded, so that the supervisor is still root.
WAITING = """
import os, time
from tamed import Application

open("loading", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
application = Application("app")
"""

# It logs enough for many rotations, whenever there is a file that says so.
CHATTY = """
import asyncio, logging, os
from tamed import Application, Service
log = logging.getLogger("app")

class Chatty(Service):
    async def run(self):
        while True:
            log.info("a line that is long enough to fill a log of a few hundred bytes")
            await asyncio.sleep(0.05)

application = Application("app", Chatty("chatty"))
"""


def test_a_file_of_roots_in_the_place_of_the_log_stays_roots(public_tamed: Tamed) -> None:
    """Its user may move it there; root refuses it by name and owner, and neither writes nor gives it away."""
    daemon = public_tamed.start_poetry("--user", "nobody")
    daemon.stop()
    secret = public_tamed.write("secret", "of root's")
    secret.chmod(0o600)
    secret.replace(daemon.log_file)
    done = public_tamed("start", "--user", "nobody", "fastpoetry", "--port", "0")
    assert (done.status, done.err.count("\n")) == (77, 1), done
    assert f"log file {daemon.log_file}: it belongs to user 0" in done.err
    found = daemon.log_file.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o600)
    assert daemon.log_file.read_text() == "of root's"
    assert public_tamed.left() == {}


def test_what_root_makes_for_a_user_is_that_users_at_once(public_tamed: Tamed) -> None:
    """While the supervisor is root it makes files as the user whose they are to be, also what was swept."""
    own = public_tamed.folder / "own"
    own.mkdir()
    os.chown(own, NOBODY, -1)
    (own / "app.py").write_text(WAITING)
    files: list[Path] = [own / "app.log", own / "app.pid"]
    arguments = ["--user", "nobody", "--log", files[0], "--pid-file", files[1], "app.py"]
    with public_tamed.popen("start", *map(str, arguments), cwd=own) as process:
        wait_for("the application", (own / "loading").exists)
        folder = public_tamed.rundir / "app"
        files += [folder, folder / "app.pid", folder / "app.sock"]
        assert {str(path): path.lstat().st_uid for path in files} == {str(path): NOBODY for path in files}
        shutil.rmtree(folder)
        (own / "app.pid").unlink()
        wait_for("what was swept", lambda: all(path.exists() for path in files))
        assert {path.lstat().st_uid for path in files} == {NOBODY}
        (own / "go").touch()
        assert process.wait() == 0
    assert public_tamed("stop").status == 0
    assert not (own / "app.pid").exists()


def make_socket(path: Path) -> None:
    """Leave a socket's file."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, make_socket, lambda path: path.symlink_to("/dev/zero")],
    ids=["fifo", "socket", "link"],
)
def test_what_is_no_file_among_the_old_logs_holds_nobody_up(
    public_tamed: Tamed, make: Callable[[Path], object]
) -> None:
    """A root supervisor rotates and compresses on beside it, and answers."""
    public_tamed.write("app.py", CHATTY)
    logs = public_tamed.folder / "own"
    logs.mkdir()
    os.chown(logs, NOBODY, NOBODY)
    make(logs / "app.log.1")
    log = ["--log", f"{logs}/app.log", "--log-rotate", "300", "--log-compress", "--log-keep", "50"]
    daemon = public_tamed.start(*log, "app.py")
    wait_for("a compressed log", lambda: any(logs.glob("app.log.*.gz")))
    assert daemon.status()["warnings"] == []
    daemon.stop()
