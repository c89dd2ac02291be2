"""What root can read and the daemon's user cannot is said at the start, and not when a worker dies."""

import os
from pathlib import Path

import pytest

from tests.supervised.daemon import NOBODY, Tamed, needs_root

pytestmark = needs_root

READING = """
from pathlib import Path
from tamed import Application, Service
import extra

class Reading(Service):
    async def prepare(self):
        self.text = Path("secret").read_text()

application = Application("app", Reading("reading"))
"""
PREPARED = ["--prepare-as-root", "--workers", "2"]
PRELOADED = [*PREPARED, "--preload"]


@pytest.fixture
def files(public_tamed: Tamed) -> dict[str, Path]:
    """Write an application, with a module of its own and a file that it reads when it prepares."""
    texts = {"app.py": READING, "extra.py": "", "secret": "of root's"}
    return {name: public_tamed.write(name, text) for name, text in texts.items()}


def command(*more: str, run: bool = False) -> list[str]:
    """Return a command line that starts it as another user."""
    return ["run" if run else "start", "--user", "nobody", *more, "app.py"]


@pytest.mark.parametrize(
    ("name", "options", "run"),
    [
        ("app.py", [], False),
        pytest.param("app.py", PRELOADED, True, marks=pytest.mark.long),
        ("extra.py", [], True),
        ("extra.py", PREPARED, False),
        ("secret", [], False),
        pytest.param("secret", PREPARED, True, marks=pytest.mark.long),
        ("secret", PRELOADED, False),
    ],
)
def test_a_file_that_the_user_cannot_read_fails_the_start(
    public_tamed: Tamed, files: dict[str, Path], name: str, options: list[str], run: bool
) -> None:
    """Code, what it imports and what it reads: the message names the file, and nothing is left."""
    files[name].chmod(0o600)
    done = public_tamed(*command(*options, run=run), env={"PYTHONPATH": str(public_tamed.folder)})
    assert done.status != 0, done
    assert name in done.err
    if options or name == "app.py":
        assert (done.status, f"user nobody cannot read {files[name]}" in done.err) == (77, True), done
        assert "give nobody permission to read it" in done.err
    assert public_tamed.left() == {}


def test_what_the_user_can_read_is_no_hindrance(public_tamed: Tamed, files: dict[str, Path]) -> None:
    """A worker that takes another's place works, whoever has loaded the first."""
    files["secret"].chmod(0o600)
    os.chown(files["secret"], NOBODY, -1)
    env = {"PYTHONPATH": str(public_tamed.folder)}
    daemon = public_tamed.start("--user", "nobody", *PREPARED, "app.py", env=env)
    workers = daemon.workers()
    os.kill(workers[0], 9)
    daemon.wait_workers(2, without=workers[:1])
    daemon.stop()


def test_a_host_key_that_root_has_made_is_refused(public_tamed: Tamed) -> None:
    """It is root's alone, so no later worker could read it; once it is the user's, all is well."""
    pytest.importorskip("asyncssh")
    key = public_tamed.folder / "host_key"
    keys = public_tamed.write("keys", "")
    options = ["--user", "nobody", "--prepare-as-root", "console", "--port", "0"]
    options += ["--host-key", str(key), "--authorized-keys", str(keys)]
    done = public_tamed("start", *options)
    assert (done.status, done.err.count("\n")) == (77, 1), done
    assert f"user nobody cannot read {key}" in done.err
    os.chown(key, NOBODY, NOBODY)
    public_tamed.start(*options).stop()
