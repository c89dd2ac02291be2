import errno
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tamed._os.descriptors import drop_new_connections
from tests.patience import PATIENCE


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def listening(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket that listens."""
    family, host = request.param
    try:
        sock = socket.create_server((host, 0), family=family)
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    with sock:
        yield sock


def connecting(listening: socket.socket) -> tuple[socket.socket, bool]:
    """Begin to connect; tell whether the kernel has done so, which on loopback it does at once."""
    client = socket.socket(listening.family)
    client.setblocking(False)
    assert client.connect_ex(listening.getsockname()) in (0, errno.EINPROGRESS)
    return client, bool(select.select([], [client], [], 0)[1])


def test_who_comes_later_does_not_get_into_the_queue(listening: socket.socket) -> None:
    """Closing the socket resets no client that considers itself connected."""
    early, is_connected = connecting(listening)
    assert is_connected
    drop_new_connections(listening)
    late, is_connected = connecting(listening)
    assert not is_connected
    with early, late:
        accepted, _ = listening.accept()
        listening.close()
        with accepted:
            accepted.sendall(b"poem")
        early.settimeout(PATIENCE)
        assert early.recv(10) == b"poem"
        assert early.recv(10) == b""


def test_who_is_in_the_queue_is_still_heard(listening: socket.socket) -> None:
    """Established connections in the queue still receive data; only new ones are dropped."""
    client, _ = connecting(listening)
    drop_new_connections(listening)
    with client:
        client.sendall(b"word")
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(PATIENCE)
            assert accepted.recv(10) == b"word"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_other_sockets_are_left_alone(kind: socket.SocketKind) -> None:
    """Sockets of other kinds are unchanged."""
    with closing(socket.socket(socket.AF_UNIX, kind)) as sock:
        drop_new_connections(sock)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        drop_new_connections(sock)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(bytes([0xFF]) * 20, sock.getsockname())
            sock.settimeout(PATIENCE)
            assert sock.recv(100) == bytes([0xFF]) * 20
