"""The sockets that a supervisor binds for its workers."""

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
    """A table, closed at the end."""
    with closing(SocketTable(Inheritance({}, os.getpid()))) as made:
        yield made


def test_an_endpoint_is_bound_once(table: SocketTable) -> None:
    """Later requests get the same sockets."""
    first = table.get("127.0.0.1:0", STREAM, 0, 1)
    assert table.get("127.0.0.1:0", STREAM, 0, 1) is first
    assert table.addresses(1) == [f"127.0.0.1:{first[0].getsockname()[1]}"]


def test_every_server_has_sockets_of_its_own(table: SocketTable) -> None:
    """Servers with the same text differ by their index, and by the kind of their sockets."""
    ports = {
        (table.get("127.0.0.1:0", kind, index, 1)[0].getsockname()[1], kind)
        for kind, index in [(STREAM, 0), (STREAM, 1), (DATAGRAM, 0)]
    }
    assert len(ports) == 3
    assert len(table.addresses(1)) == 3


def test_a_unix_socket_goes_with_the_table(table: SocketTable, tmp_path: Path) -> None:
    """Its address has the form that a user types, and its file is removed at the end."""
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
    """A failed request leaves nothing in the table."""
    with pytest.raises(ConfigurationError, match="no sockets were passed"):
        table.get("systemd://web", STREAM, 0, 1)
    assert table.addresses(1) == []


def test_a_text_that_is_no_endpoint_is_refused(table: SocketTable) -> None:
    """No worker of ours sends such a text."""
    with pytest.raises(ValueError, match="expected"):
        table.get("nonsense", STREAM, 0, 1)
