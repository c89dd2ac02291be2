"""The listening sockets in the service manager's store, as a supervisor takes and leaves them."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tamed.errors import Unavailable
from tamed.net.inherit import Inheritance
from tamed.supervisor.kept_sockets import KeptSockets
from tamed.supervisor.sockets import SocketTable
from tests.supervised.store import Store, store_in

STREAM, DATAGRAM = int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store for eight descriptors."""
    with store_in(tmp_path) as made:
        yield made


@contextmanager
def daemon(store: Store) -> Iterator[SocketTable]:
    """Yield the sockets of a daemon that was started with what the store has; it ends after the block."""
    left = {os.dup(sock.fileno()): name for name, sock in store.kept.items()}
    kept = KeptSockets.from_environ(store.env, left)
    with store.obeying(), closing(SocketTable(Inheritance({}, os.getpid()), kept=kept)) as table:
        yield table


def served(store: Store, *endpoints: str, kind: int = STREAM) -> list[socket.socket]:
    """Run a daemon with a server on each endpoint, until it was ready; return copies of its sockets."""
    with daemon(store) as table:
        sockets = [sock.dup() for each in endpoints for sock in table.get(each, kind, 0, 1)]
        assert table.keep(1) == ""
    return sockets


def is_same(one: socket.socket, other: socket.socket) -> bool:
    """Return whether these are one socket."""
    return os.fstat(one.fileno()).st_ino == os.fstat(other.fileno()).st_ino


@pytest.mark.parametrize("endpoint", ["localhost:0", "unix:@verse-{pid}", "unix:{folder}/a,b: %25.sock"])
@pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["stream", "datagram"])
def test_the_next_start_has_the_same_sockets(store: Store, tmp_path: Path, endpoint: str, kind: int) -> None:
    """Those of each family and kind, and with any name."""
    endpoint = endpoint.format(pid=os.getpid(), folder=tmp_path)
    first = served(store, endpoint, kind=kind)
    second = served(store, endpoint, kind=kind)
    assert len(store.kept) == len(first)
    for before, after in zip(first, second, strict=True):
        assert is_same(before, after)
        before.close()
        after.close()


def test_servers_on_any_port_keep_their_own(store: Store) -> None:
    """Each is known by its count."""

    def ports() -> list[int]:
        with daemon(store) as table:
            found = [table.get("127.0.0.1:0", STREAM, index, 1)[0].getsockname()[1] for index in (1, 0)]
            table.keep(1)
            return found

    assert ports() == ports()


def test_what_nobody_wants_is_closed_and_removed(store: Store, tmp_path: Path) -> None:
    """The file of a unix socket is removed, and a port is free again."""
    path = tmp_path / "socket"
    (first, second) = served(store, f"unix:{path}", "127.0.0.1:0")
    port = second.getsockname()[1]
    first.close()
    second.close()
    assert path.exists()
    for sock in served(store, "127.0.0.1:0"):
        sock.close()
    assert not path.exists()
    assert [sock.getsockname()[1] for sock in store.kept.values()] == [port]
    assert served(store) == []
    assert store.kept == {}
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_kept_socket_is_not_in_the_way_of_another_address(store: Store) -> None:
    """The port of one address was served, and now is that of all."""
    (first,) = served(store, "127.0.0.1:0")
    port = first.getsockname()[1]
    first.listen()
    first.close()
    (second,) = served(store, f"0.0.0.0:{port}")
    assert second.getsockname() == ("0.0.0.0", port)
    second.close()
    assert [sock.getsockname() for sock in store.kept.values()] == [("0.0.0.0", port)]


def test_a_unix_socket_with_another_mode_is_made_anew(store: Store, tmp_path: Path) -> None:
    """The file would have the old one."""
    path = tmp_path / "socket"
    for mode in ("600", "660"):
        for sock in served(store, f"unix:{path}?mode={mode}"):
            sock.close()
        assert f"{path.stat().st_mode & 0o777:o}" == mode
    assert len(store.kept) == 1


def test_an_address_in_use_is_an_error(store: Store) -> None:
    """A socket kept by the service manager does not help if another process has the address."""
    with socket.create_server(("127.0.0.1", 0)) as other, daemon(store) as table:
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match="is in use"):
            table.get(f"127.0.0.1:{port}", STREAM, 0, 1)


def test_sockets_of_a_generation_that_is_over_are_removed(store: Store) -> None:
    """A reload has closed the port."""
    with daemon(store) as table:
        table.get("127.0.0.1:0", STREAM, 0, 1)
        table.keep(1)
        table.get("127.0.0.1:0", STREAM, 1, 2)
        table.keep(2)
        table.release(1)
        (address,) = table.addresses(2)
    assert [f"127.0.0.1:{sock.getsockname()[1]}" for sock in store.kept.values()] == [address]


def test_no_more_are_stored_than_the_manager_keeps(store: Store) -> None:
    """The other sockets are closed at the end, as without a store, and a log line says so."""
    store.env["FDSTORE"] = "1"
    with daemon(store) as table:
        for index in (0, 1):
            table.get("127.0.0.1:0", STREAM, index, 1)
        assert "the service manager keeps 1 at most (FileDescriptorStoreMax=)" in table.keep(1)
    assert len(store.kept) == 1


@pytest.mark.parametrize("most", ["", "0", "many"])
def test_nothing_is_stored_without_a_store(store: Store, most: str) -> None:
    """The manager would log a warning."""
    store.env["FDSTORE"] = most
    for sock in served(store, "127.0.0.1:0"):
        sock.close()
    assert store.kept == {}


def test_a_descriptor_that_is_no_socket_of_ours_is_removed(store: Store) -> None:
    """Nothing else has names like ours; should it, the start does not fail."""
    with Path("/dev/null").open() as file, socket.create_server(("127.0.0.1", 0)) as sock:
        for name, other in (("tamed,1,0,0,0,,x", file), ("tamed,x", sock)):
            store.kept[name] = socket.socket(fileno=os.dup(sock.fileno()))
            os.dup2(other.fileno(), store.kept[name].fileno())
        assert served(store) == []
    assert store.kept == {}


def test_only_ours_are_taken_from_what_is_passed() -> None:
    """The others are sockets of socket units, among which ours cannot be asked for."""
    names = "poems:tamed,1,0,0,0,x,y"
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": names}
    assert Inheritance(environ, 7).stored() == {4: "tamed,1,0,0,0,x,y"}
    assert Inheritance(environ, 8).stored() == {}
    assert Inheritance({}, 7).stored() == {}
