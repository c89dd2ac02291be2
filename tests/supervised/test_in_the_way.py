"""A foreign file in the place of a daemon's file: one line, status 73, and the file stays."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.supervised.daemon import Tamed, needs_root


def make_socket(path: Path) -> None:
    """Leave a socket file without an open socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


KINDS: dict[str, Callable[[Path], object]] = {
    "a directory": Path.mkdir,
    "a link": lambda path: path.symlink_to("/nowhere"),
    "a pipe": os.mkfifo,
    "a socket": make_socket,
}
FILES = ["app.pid", "app.sock", "app.plan", "app.log"]
CASES = [
    ("a link", "app.log"),
    *(pytest.param("a link", file, marks=pytest.mark.long) for file in FILES[:-1]),
    ("a directory", "app.sock"),
    ("a pipe", "app.pid"),
    ("a socket", "app.plan"),  # in the place of the socket it is what a daemon that was killed leaves
]


def start(tamed: Tamed, *options: str | Path) -> tuple[int, int]:
    """Start, and return the status and the number of lines on standard error."""
    done = tamed("start", "--name", "app", *options, "fastpoetry", "--port", "0")
    return done.status, done.err.count("\n")


@pytest.mark.parametrize(("kind", "file"), CASES)
def test_what_is_in_the_way_of_a_file_is_refused(tamed: Tamed, kind: str, file: str) -> None:
    """Any kind of file is refused, and nothing is left beside it."""
    folder = tamed.rundir / "app"
    folder.mkdir(parents=True, mode=0o700)
    KINDS[kind](folder / file)
    before = os.lstat(folder / file)
    assert start(tamed, "--log", folder / "app.log") == (73, 1)
    assert os.path.samestat(os.lstat(folder / file), before)
    assert {path.name for path in folder.iterdir()} <= {file, "app.log", "app.log.events"}
    assert tamed.processes() == []


@pytest.mark.parametrize("kind", [pytest.param("a directory", marks=pytest.mark.long), "a link"])
def test_what_is_in_the_way_of_another_pid_file_is_refused(tamed: Tamed, kind: str) -> None:
    """A foreign file in the place of a second pid file is refused, too."""
    path = tamed.folder / "my.pid"
    KINDS[kind](path)
    assert start(tamed, "--pid-file", path) == (73, 1)
    done = tamed("run", "--pid-file", path, "fastpoetry", "--port", "0")
    assert (done.status, done.err.count("\n")) == (73, 1)
    assert os.path.lexists(path)


@pytest.mark.parametrize("place", ["", "app"])
def test_a_file_in_the_place_of_a_folder_is_refused(tamed: Tamed, place: str) -> None:
    """This applies to the run directory and to the instance's folder."""
    path = tamed.rundir / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    assert start(tamed) == (73, 1)
    assert path.read_text() == "precious"


@needs_root
@pytest.mark.parametrize(
    "file", [file if file == "app.log" else pytest.param(file, marks=pytest.mark.long) for file in FILES]
)
def test_a_device_in_the_way_is_refused(tamed: Tamed, file: str) -> None:
    """The device is neither read nor written."""
    folder = tamed.rundir / "app"
    folder.mkdir(parents=True, mode=0o700)
    os.mknod(folder / file, 0o600 | 0o020000, os.makedev(1, 7))  # /dev/full
    assert start(tamed, "--log", folder / "app.log") == (73, 1)


@needs_root
@pytest.mark.parametrize(
    ("words", "what"),
    [
        (
            ["start", "--user", "root", "--log", "fixed/app.log", "fastpoetry", "--port", "0"],
            "log file {}/app.log",
        ),
        (["cert", "--to", "fixed", "localhost"], "cannot write fixed/authority-key.pem"),
    ],
)
def test_a_read_only_file_system_is_named(tamed: Tamed, words: list[str], what: str) -> None:
    """It is not a matter of permissions, and no temporary file of ours is named."""
    fixed = tamed.folder / "fixed"
    fixed.mkdir()
    tamed.before = ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs -o ro none fixed; exec "$@"', "sh"]
    done = tamed(*words)
    assert done.status == 73
    assert done.err.startswith(f"tamed: {what.format(fixed)}: Read-only file system"), done
    assert done.err.count("\n") == 1
