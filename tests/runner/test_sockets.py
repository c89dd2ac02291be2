"""The sockets that a supervisor has for its workers."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tamed.errors import ConfigurationError
from tamed.net.inherit import Inheritance
from tamed.supervisor.sockets import SocketTable

STREAM, DATAGRAM = int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM)


@pytest.fixture
def table() -> Iterator[SocketTable]:
    """A table, closed in the end."""
    with closing(SocketTable(Inheritance({}, os.getpid()))) as made:
        yield made


def test_an_endpoint_is_bound_once(table: SocketTable) -> None:
    """Whoever asks again gets the same sockets."""
    first = table.get("127.0.0.1:0", STREAM, 0, 1)
    assert table.get("127.0.0.1:0", STREAM, 0, 1) is first
    assert table.addresses(1) == [f"127.0.0.1:{first[0].getsockname()[1]}"]


def test_every_server_has_sockets_of_its_own(table: SocketTable) -> None:
    """Two that ask for the same text are told apart by their index, and kinds of sockets are too."""
    ports = {
        (table.get("127.0.0.1:0", kind, index, 1)[0].getsockname()[1], kind)
        for kind, index in [(STREAM, 0), (STREAM, 1), (DATAGRAM, 0)]
    }
    assert len(ports) == 3
    assert len(table.addresses(1)) == 3


def test_a_unix_socket_goes_with_the_table(table: SocketTable, tmp_path: Path) -> None:
    """Its address is as one types it, and its file is removed in the end."""
    path = tmp_path / "socket"
    table.get(f"unix:{path}?mode=600", STREAM, 0, 1)
    assert table.addresses(1) == [f"unix:{path}"]
    assert path.is_socket()
    table.close()
    assert not path.exists()
    assert table.addresses(1) == []


def test_what_was_inherited_is_handed_on(table: SocketTable) -> None:
    """A socket that was open before this process began is not bound but copied."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        (sock,) = table.get(f"fd://{given.fileno()}", STREAM, 0, 1)
        assert sock.getsockname() == given.getsockname()
        assert sock.fileno() != given.fileno()


def test_what_was_not_passed_cannot_be_had(table: SocketTable) -> None:
    """And nothing is remembered of it."""
    with pytest.raises(ConfigurationError, match="no sockets were passed"):
        table.get("systemd://web", STREAM, 0, 1)
    assert table.addresses(1) == []


def test_a_text_that_is_no_endpoint_is_refused(table: SocketTable) -> None:
    """It is no worker that says such a thing."""
    with pytest.raises(ValueError, match="expected"):
        table.get("nonsense", STREAM, 0, 1)
