import errno
import fcntl
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tamed._os.unix_sockets import _set_mode, bind_unix, short_path
from tamed.errors import (
    CannotCreate,
    ConfigurationError,
    MissingInput,
    SystemRefused,
    TamedError,
    Unavailable,
)
from tamed.net.bind import Bound, _require_stale, _unix_refusal, bind
from tamed.net.endpoint import UnixEndpoint
from tests.net.unprivileged import run_unprivileged

EITHER_KIND = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Set the umask of this process inside the ``with``."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a place for a socket."""
    return tmp_path / "x.sock"


@pytest.fixture
def endpoint(path: Path) -> UnixEndpoint:
    """Give the endpoint of that place."""
    return UnixEndpoint(str(path))


def mode_of(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.lstat().st_mode)


def leave_stale(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Leave the file of a socket that no process has any more."""
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(str(path))


@EITHER_KIND
def test_a_unix_socket_is_bound(path: Path, endpoint: UnixEndpoint, kind: socket.SocketKind) -> None:
    """The socket is of the kind asked for, non-blocking and not inheritable; closing removes its file."""
    with closing(bind(endpoint, kind)) as bound:
        (sock,) = bound.sockets
        assert sock.getsockname() == str(path)
        assert sock.type == kind
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        assert path.is_socket()
    assert not path.exists()


def test_closing_twice_is_closing_once(endpoint: UnixEndpoint, path: Path) -> None:
    """A second close does not remove a file created since."""
    bound = bind(endpoint)
    bound.close()
    path.write_text("somebody else's")
    bound.close()
    assert path.exists()


def test_a_relative_path_is_removed_wherever_the_process_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is removed although the working directory has changed since."""
    monkeypatch.chdir(tmp_path)
    bound = bind(UnixEndpoint("x.sock"))
    monkeypatch.chdir("/")
    bound.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_took_the_place_is_not_removed(path: Path, endpoint: UnixEndpoint) -> None:
    """Closing removes the file that was made, not one that came after it."""
    with closing(bind(endpoint)):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.is_socket()


@pytest.mark.parametrize("mask", [0o000, 0o027, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777, 0o000])
@EITHER_KIND
def test_the_mode_is_the_one_asked_for(path: Path, mode: int, mask: int, kind: socket.SocketKind) -> None:
    """Whatever the umask, the file has the endpoint's mode."""
    with umask(mask), closing(bind(UnixEndpoint(str(path), mode), kind)):
        assert mode_of(path) == mode


def test_without_a_mode_the_umask_decides(path: Path, endpoint: UnixEndpoint) -> None:
    """An endpoint without a mode leaves it to the umask, as any program would."""
    with umask(0o027), closing(bind(endpoint)):
        assert mode_of(path) == 0o750


class WatchedSocket(socket.socket):
    """A socket that notes the mode of its file as soon as that is there."""

    born_with = 0

    def bind(self, address: str) -> None:  # type: ignore[override]
        """Bind, and look."""
        super().bind(address)
        self.born_with = mode_of(Path(address))


@EITHER_KIND
def test_the_file_is_born_with_its_mode(path: Path, kind: socket.SocketKind) -> None:
    """There is no moment between ``bind`` and ``chmod`` in which the file is more open than asked."""
    with umask(0), WatchedSocket(socket.AF_UNIX, kind) as sock:
        bind_unix(sock, path, 0o600)
        assert sock.born_with == 0o600


def test_the_mode_of_a_link_s_target_is_left_alone(path: Path, tmp_path: Path) -> None:
    """A link that took the socket's place does not make us open up another file."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    path.symlink_to(secret)
    with pytest.raises(FileExistsError):
        _set_mode(path, 0o666)
    assert mode_of(secret) == 0o600


@EITHER_KIND
@pytest.mark.parametrize("of", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_stale_socket_is_replaced(
    path: Path, endpoint: UnixEndpoint, kind: socket.SocketKind, of: socket.SocketKind
) -> None:
    """The file that a process left behind when it died is replaced, whatever kind it was."""
    leave_stale(path, of)
    with closing(bind(endpoint, kind)) as bound, socket.socket(socket.AF_UNIX, kind) as client:
        if kind == socket.SOCK_STREAM:
            bound.sockets[0].listen()
        client.connect(str(path))


def test_a_live_socket_is_not_replaced(path: Path, endpoint: UnixEndpoint) -> None:
    """A socket that a server listens on stays, and the server sees no connection."""
    with closing(bind(endpoint)) as first:
        first.sockets[0].listen()
        with pytest.raises(Unavailable) as caught:
            bind(endpoint)
        with pytest.raises(BlockingIOError):
            first.sockets[0].accept()
        assert path.is_socket()
    assert str(caught.value) == (
        f"cannot listen on unix:{path}: a running process holds this socket; "
        f"stop the process that listens there (ss -xap src unix:{path}) or choose another path"
    )


@EITHER_KIND
def test_a_socket_whose_server_has_not_started_is_live(
    endpoint: UnixEndpoint, kind: socket.SocketKind
) -> None:
    """A bound socket that nobody can connect to yet is not mistaken for a dead one."""
    with closing(bind(endpoint, kind)), pytest.raises(Unavailable, match="a running process holds"):
        bind(endpoint)


@pytest.mark.parametrize("what", ["file", "directory", "link", "dangling link"])
def test_what_is_not_a_socket_is_never_removed(path: Path, endpoint: UnixEndpoint, what: str) -> None:
    """A file, a directory and a link in the socket's place are left as they are."""
    match what:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "link":
            leave_stale(path.with_name("other"))
            path.symlink_to(path.with_name("other"))
        case _:
            path.symlink_to(path.with_name("nowhere"))
    before = path.lstat()
    with pytest.raises(CannotCreate, match="has this path; remove it or choose another path") as caught:
        bind(endpoint)
    assert ("a symbolic link" in caught.value.why) == ("link" in what)
    assert path.lstat() == before


def test_a_missing_directory(tmp_path: Path) -> None:
    """The error names the missing directory and the command that creates it."""
    with pytest.raises(MissingInput) as caught:
        bind(UnixEndpoint(f"{tmp_path}/no/x.sock"))
    assert str(caught.value) == (
        f"cannot listen on unix:{tmp_path}/no/x.sock: there is no directory {tmp_path}/no; "
        f"create it (mkdir -p {tmp_path}/no) or choose another path"
    )


def test_a_directory_of_somebody_else() -> None:
    """The error names a directory that is not writable."""
    said = run_unprivileged(
        "from tamed.net.bind import bind; from tamed.net.endpoint import Endpoint",
        "bind(Endpoint.parse('unix:/x.sock'))",
    )
    assert said.startswith(
        "PermissionRefused: cannot listen on unix:/x.sock: this user may not create a socket in /;"
    )


def test_a_stale_socket_of_somebody_else() -> None:
    """A socket that this user may not even ask is not taken for dead."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to leave a file that belongs to another user")
    with tempfile.TemporaryDirectory() as directory:  # below tmp_path other users reach nothing
        Path(directory).chmod(0o777)
        path = Path(directory, "x.sock")
        leave_stale(path)
        path.chmod(0o600)
        said = run_unprivileged(
            "from tamed.net.bind import bind; from tamed.net.endpoint import Endpoint",
            f"bind(Endpoint.parse('unix:{path}'))",
        )
        assert "this user may not check whether it is in use" in said
        assert path.is_socket()


@EITHER_KIND
def test_a_long_path_works(tmp_path: Path, kind: socket.SocketKind) -> None:
    """A path longer than a socket address can be bound, replaced, connected to and removed."""
    path = tmp_path / ("d" * 100) / "x.sock"
    path.parent.mkdir()
    endpoint = UnixEndpoint(str(path), 0o600)
    with closing(bind(endpoint, kind)), pytest.raises(Unavailable):
        bind(endpoint)
    assert not path.exists()
    with short_path(path) as name:
        leave_stale(Path(name), kind)
    with closing(bind(endpoint, kind)) as bound, socket.socket(socket.AF_UNIX, kind) as client:
        if kind == socket.SOCK_STREAM:
            bound.sockets[0].listen()
        with short_path(path) as name:
            client.connect(name)
        assert mode_of(path) == 0o600
    assert not path.exists()


def test_a_short_path_is_itself(path: Path) -> None:
    """A path that fits is used as it is, so that other tools show it."""
    with short_path(path) as name:
        assert name == str(path)


def test_a_long_name_is_an_error(tmp_path: Path) -> None:
    """A file name that no trick makes short enough is refused with both lengths."""
    with pytest.raises(
        ConfigurationError, match=r"its name has 120 bytes, but a socket's name may have \d+ at most"
    ):
        bind(UnixEndpoint(f"{tmp_path}/{'x' * 120}"))
    assert list(tmp_path.iterdir()) == []


@EITHER_KIND
def test_an_abstract_socket(kind: socket.SocketKind, path: Path) -> None:
    """An abstract name is bound without a file, and refused while another socket has it."""
    endpoint = UnixEndpoint(f"@{path}")
    with closing(bind(endpoint, kind)) as bound:
        assert bound.file is None
        assert bound.sockets[0].getsockname() == b"\0" + bytes(path)
        with pytest.raises(
            Unavailable, match=r"cannot listen on unix:@/.*: a running process holds this socket"
        ):
            bind(endpoint, kind)
    assert not path.exists()


def test_a_long_abstract_name_is_an_error() -> None:
    """An abstract name longer than a socket address is refused."""
    with pytest.raises(
        ConfigurationError, match="its name has 108 bytes, but a socket's name may have 107 at most"
    ):
        bind(UnixEndpoint("@" + "x" * 108))


def test_of_those_that_replace_a_stale_socket_at_once_one_wins(path: Path, endpoint: UnixEndpoint) -> None:
    """Several that find the same stale file: one has the socket in the end, and it can be reached."""
    leave_stale(path)
    barrier = threading.Barrier(8)
    winners: list[Bound] = []
    errors: list[TamedError] = []

    def compete() -> None:
        barrier.wait()
        try:
            winners.append(bind(endpoint))
        except TamedError as error:
            errors.append(error)

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert {type(error) for error in errors} == {Unavailable}
    with closing(winners[0]) as bound, socket.socket(socket.AF_UNIX) as client:
        bound.sockets[0].listen()
        client.connect(str(path))


def test_a_locked_directory_is_not_waited_for_forever(path: Path, endpoint: UnixEndpoint) -> None:
    """Who keeps the directory locked keeps us from replacing a stale socket, and not from saying so."""
    leave_stale(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match=f"another process keeps {path.parent} locked"):
            bind(endpoint)
    finally:
        os.close(descriptor)
    assert path.is_socket()


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    """A path through links that go in a circle cannot be created."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CannotCreate, match="Too many levels of symbolic links; choose another path"):
        bind(UnixEndpoint(f"{tmp_path}/loop/x.sock"))


def test_other_refusals_are_the_system_s(endpoint: UnixEndpoint) -> None:
    """Other errors have the operating system's text."""
    error = _unix_refusal(endpoint, OSError(errno.EMFILE, "Too many open files"))
    assert isinstance(error, SystemRefused)
    assert str(error).startswith(f"cannot listen on {endpoint}: Too many open files; raise the limit")


def test_a_socket_that_is_gone_meanwhile_is_not_in_the_way(path: Path, endpoint: UnixEndpoint) -> None:
    """What another process removed in the same moment does not have to be removed."""
    _require_stale(path, endpoint)


def test_a_read_only_file_system() -> None:
    """The error says that the file system is read-only."""
    with pytest.raises(TamedError) as caught:
        bind(UnixEndpoint("/proc/x.sock"))
    assert str(caught.value).startswith("cannot listen on unix:/proc/x.sock: ")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno in (errno.ENOENT, errno.EPERM, errno.EACCES, errno.EROFS)
