import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tamed.net._connection import Connection, TlsConnection, TransportOpener, peer_text
from tamed.net.reply import BorrowedSocket


@pytest.fixture
def pair() -> Iterator[tuple[int, socket.socket]]:
    """Return the two ends of a TCP connection: a descriptor, which the test closes, and a socket."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        yield accepted.detach(), client


def connection(fd: int, told: list[Connection]) -> Connection:
    """Make a connection that tells a list of its end."""
    return Connection(socket.AF_INET, socket.SOCK_STREAM, 0, fd, told.append)


def test_the_end_is_reported_once(pair: tuple[int, socket.socket]) -> None:
    """Closing and detaching a socket repeatedly is reported once."""
    told: list[Connection] = []
    ours = connection(pair[0], told)
    assert told == []
    ours.close()
    assert told == [ours]
    ours.close()
    ours.detach()
    assert told == [ours]


def test_detaching_is_an_end(pair: tuple[int, socket.socket]) -> None:
    """This is how a connection ends in uvloop, which closes the descriptor itself."""
    told: list[Connection] = []
    ours = connection(pair[0], told)
    fd = ours.detach()
    assert told == [ours]
    os.close(fd)


def test_a_duplicate_is_on_its_own(pair: tuple[int, socket.socket]) -> None:
    """A handler may duplicate its socket; closing the duplicate has no effect on the connection."""
    told: list[Connection] = []
    with closing(connection(pair[0], told)) as ours:
        with closing(ours.dup()) as duplicate:
            assert duplicate.family is socket.AF_INET
            assert duplicate.type is socket.SOCK_STREAM
        assert told == []


def test_the_peer_is_written_as_one_would_type_it(pair: tuple[int, socket.socket]) -> None:
    """The log shows the peer's address; after a disconnect it is known only through TLS."""
    fd, client = pair
    ours = connection(fd, [])
    address = client.getsockname()
    assert ours.peer == f"127.0.0.1:{address[1]}"
    ours.close()
    assert ours.peer == "a disconnected peer"
    through_tls = TlsConnection(socket.AF_INET, socket.SOCK_STREAM)
    through_tls.address = address
    with closing(through_tls):
        assert through_tls.peer == f"127.0.0.1:{address[1]}"


def test_an_abort_without_a_transport_closes(pair: tuple[int, socket.socket]) -> None:
    """A connection that was not opened yet is ended all the same, once, and its peer sees a reset."""
    fd, client = pair
    told: list[Connection] = []
    ours = connection(fd, told)
    assert ours.fileno() == fd
    ours.abort()
    ours.abort()
    assert told == [ours]
    assert ours.fileno() == -1
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_a_borrowed_descriptor_is_left_open() -> None:
    """The descriptor number may have been reused, so a collected object must not close it."""
    one, other = socket.socketpair()
    with closing(one), closing(other):
        borrowed = BorrowedSocket(one.family, one.type, one.proto, one.fileno())
        borrowed.send(b"a line")
        del borrowed
        one.send(b", and more")
        assert other.recv(100) == b"a line, and more"


def test_a_unix_peer_is_its_process() -> None:
    """A unix client has no address; where its process cannot be told either, that is all there is."""
    one, other = socket.socketpair()
    with closing(one), closing(other):
        assert peer_text("", one) == f"unix (pid {os.getpid()}, uid {os.getuid()})"
    assert peer_text("", one) == "unix"
    assert peer_text("", None) == "unix"
    assert peer_text(b"\0name", one) == "unix:@name"


@pytest.mark.anyio
async def test_a_connection_that_is_aborted_while_it_opens_is_gone(pair: tuple[int, socket.socket]) -> None:
    """Also before its protocol was told of it, when uvloop cannot bear it to be closed."""
    told: list[Connection] = []
    loop = asyncio.get_running_loop()
    ours = connection(pair[0], told)
    opening = loop.connect_accepted_socket(asyncio.Protocol, ours)
    TransportOpener(lambda *_: None).begin(ours, opening)
    ours.abort()
    while not told:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told == [ours]
