import asyncio
import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tamed.net.accept import Acceptor, ListeningSocket
from tests.net.poetry import until
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Return a listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


class Taken:
    """Takes connections and closes them."""

    def __init__(self) -> None:
        self.count = 0
        self.after: Callable[[], None] = lambda: None

    def __call__(self, fd: int, address: Any) -> None:
        os.close(fd)
        self.count += 1
        self.after()


class Accept:
    """The system's accept, with errors that happen before it."""

    def __init__(self, sock: socket.socket, *errors: int) -> None:
        self.errors = list(errors)
        self.calls = 0
        self._accept = ListeningSocket(sock, Taken()).accept

    def __call__(self) -> tuple[int, Any]:
        self.calls += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return self._accept()


def connected(sock: socket.socket, count: int = 1) -> list[socket.socket]:
    """Connect clients, which wait in the kernel's queue."""
    return [socket.create_connection(sock.getsockname()) for _ in range(count)]


def close_all(clients: list[socket.socket]) -> None:
    """Close clients."""
    for client in clients:
        client.close()


async def test_connections_are_taken_in_batches(listening: socket.socket) -> None:
    """After a batch other callbacks have their turn, before the queue is empty."""
    taken = Taken()
    seen: list[int] = []
    acceptor = Acceptor("poetry", [ListeningSocket(listening, taken)], batch=3)
    loop = asyncio.get_running_loop()

    def look() -> None:
        seen.append(taken.count)
        if taken.count < 8:
            loop.call_soon(look)

    clients = connected(listening, 8)
    acceptor.resume()
    look()
    await until(lambda: taken.count == 8)
    acceptor.close()
    close_all(clients)
    assert sorted(set(seen)) == [0, 3, 6, 8]


async def test_a_pause_leaves_clients_in_the_queue(listening: socket.socket) -> None:
    """A pause from within takes effect at once, and what waits is taken when it is over."""
    taken = Taken()
    acceptor = Acceptor("poetry", [ListeningSocket(listening, taken)])
    taken.after = acceptor.pause
    clients = connected(listening, 3)
    for count in (1, 2, 3):
        acceptor.resume()
        await until(lambda: acceptor.paused)
        assert taken.count == count
    acceptor.close()
    close_all(clients)


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EPERM])
async def test_errors_of_a_connection_are_no_reason_to_pause(
    listening: socket.socket, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that is gone before it is accepted is passed over without a word."""
    taken = Taken()
    acceptor = Acceptor(
        "poetry", [ListeningSocket(listening, taken, accept=Accept(listening, number, number))]
    )
    clients = connected(listening)
    acceptor.resume()
    await until(lambda: taken.count == 1)
    assert not acceptor.paused
    acceptor.close()
    close_all(clients)
    assert caplog.text == ""


async def test_a_shortage_pauses_until_a_connection_was_closed(
    listening: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """Without descriptors nothing is tried until there may be one; that is told once, with the limit."""
    taken = Taken()
    accept = Accept(listening, errno.EMFILE, errno.EMFILE)
    acceptor = Acceptor("poetry", [ListeningSocket(listening, taken, accept=accept)], retry_delay=3600)
    clients = connected(listening)
    acceptor.resume()
    await until(lambda: acceptor.paused)
    for _ in range(10):
        await asyncio.sleep(0)
    assert accept.calls == 1
    acceptor.resume()
    await until(lambda: acceptor.paused)
    acceptor.resume()
    await until(lambda: taken.count == 1)
    acceptor.close()
    close_all(clients)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "poetry cannot accept connections: Too many open files (RLIMIT_NOFILE is " in caplog.text


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
async def test_a_shortage_is_over_when_there_was_none_for_a_while(
    listening: socket.socket, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again after a delay, however often; the end is told once, like the beginning."""
    caplog.set_level(logging.INFO)
    taken = Taken()
    accept = Accept(listening, *[number] * 4)
    acceptor = Acceptor("poetry", [ListeningSocket(listening, taken, accept=accept)], retry_delay=0.01)
    clients = connected(listening)
    acceptor.resume()
    await until(lambda: "accepts connections again" in caplog.text)
    assert taken.count == 1
    assert accept.calls == 6  # four in vain, one that took the client, one that found no other
    acceptor.close()
    close_all(clients)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert os.strerror(number) in caplog.text


async def test_a_closed_acceptor_tries_no_more(listening: socket.socket) -> None:
    """Closing it during a shortage ends the tries, and leaves the socket open."""
    accept = Accept(listening, *[errno.EMFILE] * 100)
    acceptor = Acceptor("poetry", [ListeningSocket(listening, Taken(), accept=accept)], retry_delay=0.001)
    clients = connected(listening)
    acceptor.resume()
    await until(lambda: accept.calls > 2)
    acceptor.close()
    calls = accept.calls
    await asyncio.sleep(0.01)
    assert accept.calls == calls
    assert listening.fileno() != -1
    close_all(clients)


async def test_finishing_empties_the_queue_and_closes(listening: socket.socket) -> None:
    """Who waits is taken, then the socket is closed and new clients are refused."""
    taken = Taken()
    address = listening.getsockname()
    acceptor = Acceptor("poetry", [ListeningSocket(listening, taken)], batch=2)
    acceptor.resume()
    clients = connected(listening, 5)
    await acceptor.finish(most=100)
    assert taken.count == 5
    with socket.socket() as late:
        assert late.connect_ex(address) == errno.ECONNREFUSED
    acceptor.close()
    close_all(clients)


async def test_finishing_an_empty_queue_needs_no_descriptor(listening: socket.socket) -> None:
    """Where nobody waits there is nothing to accept, so a shortage keeps no server from stopping."""
    accept = Accept(listening, errno.EMFILE)
    acceptor = Acceptor("poetry", [ListeningSocket(listening, Taken(), accept=accept)], retry_delay=3600)
    clients = connected(listening)
    acceptor.resume()
    await until(lambda: acceptor.paused)
    finishing = asyncio.ensure_future(acceptor.finish(most=100))
    await asyncio.sleep(0)
    assert not finishing.done()
    acceptor.resume()
    await finishing
    assert accept.calls == 3  # in vain, for the client, and to see that there is no other
    acceptor.close()
    close_all(clients)

    with socket.create_server(("127.0.0.1", 0)) as idle:
        idle.setblocking(False)
        unused = Accept(idle, errno.EMFILE)
        acceptor = Acceptor("poetry", [ListeningSocket(idle, Taken(), accept=unused)])
        acceptor.resume()
        await acceptor.finish(most=100)
        assert unused.calls == 0
        acceptor.close()


async def test_finishing_is_bounded(listening: socket.socket) -> None:
    """After the bound a socket is closed although somebody waits."""
    taken = Taken()
    acceptor = Acceptor("poetry", [ListeningSocket(listening, taken)], batch=1)
    acceptor.resume()
    clients = connected(listening, 5)
    await acceptor.finish(most=3)
    assert taken.count == 3
    assert listening.fileno() == -1
    acceptor.close()
    close_all(clients)


async def test_finishing_leaves_shared_sockets(listening: socket.socket) -> None:
    """What waits at a socket that others accept from too is theirs."""
    taken = Taken()
    acceptor = Acceptor("poetry", [ListeningSocket(listening, taken, shared=True)])
    acceptor.resume()
    clients = connected(listening)
    await acceptor.finish(most=100)
    assert taken.count == 0
    with closing(listening.accept()[0]):
        acceptor.close()
    close_all(clients)


STARVED = """
import asyncio, logging, resource, socket, sys
from tamed.net.reply import ReplyServer
from tamed.net.stream import ProtocolServer, StreamServer

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)

class Hold(asyncio.Protocol):
    def data_received(self, data):
        asyncio.get_running_loop().stop

async def hold(reader, writer):
    writer.write(await reader.read(1))

async def main():
    server = StreamServer("127.0.0.1:0", hold, drain_timeout=10)
    async with server:
        loop = asyncio.get_running_loop()
        address = server.listeners[0].sockets[0].getsockname()
        soft = 64
        clients = [socket.create_connection(address) for _ in range(40)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        while not server._acceptor.paused:
            await asyncio.sleep(0.001)
        served = server.connections
        assert 0 < served < 40, served
        before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        await asyncio.sleep(0.3)
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before
        assert spent < 0.15, f"busy: {spent}"
        assert server.connections == served
        for client in clients:
            client.setblocking(False)
            await loop.sock_sendall(client, b"x")
            assert await loop.sock_recv(client, 10) == b"x"
            assert await loop.sock_recv(client, 10) == b""
            client.close()
        print("served", server.accepted)

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_server_without_descriptors_serves_everybody_in_the_end(loop: str) -> None:
    """Past RLIMIT_NOFILE clients wait, the processor rests, it is told once, and none is lost."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    done = subprocess.run(
        [sys.executable, "-c", STARVED, loop],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    assert "served 40" in done.stdout
    assert done.stdout.count("stream-server cannot accept connections: Too many open files") == 1
    assert "(RLIMIT_NOFILE is 64)" in done.stdout
