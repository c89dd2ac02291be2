"""Unix sockets at any path."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tamed._os.unix_sockets import bind_unix, connect_unix
from tamed.errors import ConfigurationError
from tests.unix import rundir_child
from tests.unix.process import NOBODY, call, needs_root


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Return a socket that can be bound."""
    with socket.socket(socket.AF_UNIX) as unbound:
        yield unbound


@pytest.fixture
def long_path(tmp_path: Path) -> Path:
    """Return a directory with a path that fits into no address."""
    path = tmp_path / ("d" * 100) / ("e" * 100)
    path.mkdir(parents=True)
    return path


def talk(listening: socket.socket, path: Path) -> bytes:
    """Connect to a socket that listens, and return what goes through."""
    listening.listen()
    with socket.socket(socket.AF_UNIX) as client:
        connect_unix(client, path)
        with listening.accept()[0] as connected:
            client.sendall(b"poem")
            return connected.recv(99)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
def test_mode_from_the_beginning(listening: socket.socket, tmp_path: Path, mode: int) -> None:
    """The file has just the mode that was asked for, and the umask is as before."""
    mask = os.umask(0o022)
    try:
        bind_unix(listening, tmp_path / "x.sock", mode=mode)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "x.sock").stat().st_mode) == mode
    assert talk(listening, tmp_path / "x.sock") == b"poem"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_long_path(long_path: Path, kind: socket.SocketKind) -> None:
    """A path that is longer than an address can be bound and connected to, and leaves no descriptor open."""
    path = long_path / "verse.sock"
    assert len(os.fsencode(path)) > 200
    before = len(list(Path("/proc/self/fd").iterdir()))
    with socket.socket(socket.AF_UNIX, kind) as first, socket.socket(socket.AF_UNIX, kind) as second:
        bind_unix(first, path)
        assert stat.S_ISSOCK(path.stat().st_mode)
        if kind == socket.SOCK_STREAM:
            first.listen()
        connect_unix(second, path)
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("extra", range(98, 114))
def test_every_length(tmp_path: Path, listening: socket.socket, extra: int) -> None:
    """Around the length of an address each path works."""
    name = "x" * 60
    directory = tmp_path / ("d" * max(extra - len(os.fsencode(tmp_path)) - 2 - len(name), 1))
    directory.mkdir()
    bind_unix(listening, directory / name)
    assert talk(listening, directory / name) == b"poem"


def test_name_that_is_too_long(long_path: Path, listening: socket.socket) -> None:
    """A name that fits into no address by itself is refused."""
    with pytest.raises(ConfigurationError, match="its name has 100 bytes"):
        bind_unix(listening, long_path / ("x" * 100))


def test_errors_come_through(tmp_path: Path, long_path: Path, listening: socket.socket) -> None:
    """What is wrong with the path is told by the system, for long paths as for short ones."""
    for path in (tmp_path / "x", long_path / "x"):
        with pytest.raises(FileNotFoundError):
            connect_unix(listening, path)
        path.touch()
        with pytest.raises(OSError, match="Address already in use"):
            bind_unix(listening, path)
        with pytest.raises(FileNotFoundError):
            bind_unix(listening, path.parent / "none" / "x")


@needs_root
def test_made_as_its_owner(public_path: Path) -> None:
    """Root makes the file as the user it is for, where that user may, and is root again in each case."""
    own = public_path / "own"
    own.mkdir()
    as_before = [[0, 0, 0], [0, 0, 0], True]
    told, *after, _ = call(rundir_child.bind_for, "nobody", own / "x.sock")
    assert told == "Permission denied"
    assert after == as_before
    os.chown(own, NOBODY, -1)
    told, *after, mask = call(rundir_child.bind_for, "nobody", own / "x.sock")
    assert told[0] == NOBODY
    assert told[2] == 0o660
    assert after == as_before
    assert mask == 0o022


@needs_root
def test_long_path_without_proc(tmp_path: Path) -> None:
    """Where the directory cannot be named in short, a long path is refused and a short one works."""
    said = call(rundir_child.bind_without_proc, tmp_path, "/" + "x" * 120)
    assert said.startswith("SystemRefused: socket /xxx")
    assert said.endswith("the path is too long for this system; use a shorter one")
    assert call(rundir_child.bind_without_proc, tmp_path, "/x.sock") == ""
