"""A generation uses one reading of the files: later changes are for the next generation."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervised.daemon import Daemon, Tamed, needs_root, read_poem

RELEASE = """
from pathlib import Path
from tamed import Application, StreamServer

async def tell(reader, writer):
    text = Path({data!r}).read_text()
    writer.write(text.encode())

application = Application("app", StreamServer("127.0.0.1:0", tell))
"""

BESIDE = "Path(__file__).with_name("


def lose_one(daemon: Daemon) -> None:
    """Kill a worker, and wait for its replacement."""
    workers = daemon.workers()
    os.kill(workers[0], signal.SIGKILL)
    daemon.wait_workers(len(workers), without=workers[:1])


@pytest.mark.parametrize(
    ("options", "unfinished"), [([], None), (["--preload"], "[services.a\n")], ids=["gone", "preload-broken"]
)
def test_a_replacement_reads_nothing_anew(tamed: Tamed, options: list[str], unfinished: str | None) -> None:
    """Its deployment and settings are those of its generation, after any change of the file.

    So are they over an upgrade whose reload fails: the new program has the reading of the old one.
    """
    good = (
        f'[daemon]\nwatchdog = "25s"\n[services.a]\nplugin = "fastpoetry"\nport = 0\npoem = "{tamed.poem}"\n'
    )
    file = tamed.write("verse.toml", good)
    daemon = tamed.start("--workers", "1", *options, "verse.toml")
    if unfinished is None:
        file.unlink()
    else:
        file.write_text(unfinished)
    lose_one(daemon)
    assert tamed("scale", "2").status == 0
    assert read_poem(daemon.port) == tamed.poem.read_bytes()
    assert tamed("reload" if unfinished is None else "upgrade").status != 0
    lose_one(daemon)
    assert (daemon.status()["state"], daemon.status()["generation"]) == ("running", 1)
    assert read_poem(daemon.port) == tamed.poem.read_bytes()
    file.write_text(good)
    assert tamed("reload").status == 0
    daemon.stop()


class Releases:
    """Two releases, and a link ``current`` that leads to the first one."""

    def __init__(self, tamed: Tamed) -> None:
        self.tamed = tamed
        self.link = tamed.folder / "current"
        for number in ("41", "42"):
            folder = tamed.folder / "releases" / number
            folder.mkdir(parents=True)
            (folder / "data.txt").write_text(number)
            (folder / "app.py").write_text(RELEASE.format(data="data.txt"))
            (folder / "app.toml").write_text('[services.a]\napplication = "own.py"\n')
            (folder / "own.py").write_text(RELEASE.format(data="data.txt").replace("Path(", BESIDE))
        self.link.symlink_to("releases/41")

    def move(self) -> None:
        """Let the link lead to the second release, and remove the first."""
        new = self.tamed.folder / "new"
        new.symlink_to("releases/42")
        new.replace(self.link)


@pytest.fixture
def releases(tamed: Tamed) -> Releases:
    """Two releases in the folder of the command."""
    return Releases(tamed)


WAYS = {
    "inside": ("current", ["app.py"]),
    "module": ("current", ["app:application"]),
    "directory": (".", ["--directory", "current", "current/app.py"]),
    "toml": (".", ["{folder}/current/app.toml"]),
}


def start(releases: Releases, way: str) -> Daemon:
    """Start the first release in one of the ways, as a shell does."""
    folder, words = WAYS[way]
    place = releases.tamed.folder / folder
    arguments = [word.format(folder=releases.tamed.folder) for word in words]
    return releases.tamed.start("--workers", "1", *arguments, cwd=place, env={"PWD": os.path.normpath(place)})


@pytest.mark.parametrize(
    ("command", "way"),
    [
        ("reload", "toml"),
        ("upgrade", "directory"),
        ("restart", "inside"),
        pytest.param("reload", "inside", marks=pytest.mark.long),
        pytest.param("reload", "module", marks=pytest.mark.long),
    ],
)
def test_a_link_that_has_moved_is_followed_by_the_next_generation(
    releases: Releases, way: str, command: str
) -> None:
    """A worker that is replaced before serves the same release as the others.

    Then the old release may be deleted, and is missed by nobody.
    """
    daemon = start(releases, way)
    assert read_poem(daemon.port) == b"41"
    releases.move()
    lose_one(daemon)
    assert read_poem(daemon.port) == b"41"
    shutil.rmtree(releases.tamed.folder / "releases" / "41")
    done = releases.tamed(command, daemon.name)
    assert (done.status, done.err) == (0, ""), done
    (endpoint,) = daemon.status()["endpoints"]
    assert read_poem(int(endpoint.rpartition(":")[2])) == b"42"
    assert releases.tamed("stop").status == 0


def test_a_folder_that_is_gone_is_named(releases: Releases) -> None:
    """The error is one line; the daemon goes on unchanged."""
    daemon = start(releases, "inside")
    releases.link.unlink()
    for command in ("reload", "upgrade", "restart"):
        done = releases.tamed(command, daemon.name)
        told = f"tamed: cannot enter {releases.link}, where app was started: No such file or directory; "
        assert done.status == 66, command
        assert done.err.startswith(told)
        assert done.err.count("\n") == 1
    assert read_poem(daemon.port) == b"41"
    daemon.stop()


def test_a_command_in_a_folder_that_is_gone_says_so(tamed: Tamed) -> None:
    """Commands that need it fail with one line; a running daemon still has a status, and can be stopped."""
    daemon = tamed.start_poetry()
    gone = tamed.folder / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD"; exec "$@"'
    for command, status in (
        (["start", "app.py"], 66),
        (["run", "--workers", "1", "app.py"], 66),
        (["run", "app:application"], 66),
        (["run", "app.py"], 66),
        (["status"], 0),
    ):
        gone.mkdir(exist_ok=True)
        words = [sys.executable, "-P", "-m", "tamed", *command]
        done = subprocess.run(
            ["sh", "-c", script, "sh", *words],
            check=False,
            cwd=gone,
            env=tamed.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done
        assert done.stderr.count("\n") == (status != 0), done
    daemon.stop()


@needs_root
def test_a_folder_that_the_user_cannot_reach_is_where_it_stays(public_tamed: Tamed) -> None:
    """Root has started it there; replacements and reloads of the other user still run in it."""
    folder = public_tamed.folder / "closed" / "folder"
    folder.mkdir(parents=True)
    Path(folder.parent).chmod(0o700)
    daemon = public_tamed.start_poetry("--user", "nobody", cwd=folder, env={"PWD": str(folder)})
    lose_one(daemon)
    assert public_tamed("reload").status == 0
    lose_one(daemon)
    assert {str(Path(f"/proc/{pid}/cwd").readlink()) for pid in daemon.workers()} == {str(folder)}
    daemon.stop()
