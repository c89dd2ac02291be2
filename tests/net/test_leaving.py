"""Clients that leave at every moment: it is never a fault of the application, and nothing is left of them."""

import asyncio
import gc
import logging
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import trustme

from tamed.net.datagram import DatagramServer
from tamed.net.endpoint import TlsEndpoint
from tamed.net.listen import ServerEnvironment, use_environment
from tamed.net.reply import ReplyServer
from tamed.net.server import Server
from tamed.net.stream import ProtocolServer, StreamServer
from tests.net.certificates import Files, client_of, make_files
from tests.net.poetry import SMALL, Stopping, reset, slowly, until

pytestmark = pytest.mark.anyio

LONG = bytes(range(256)) * 1024
"""More than the kernel takes at once."""


# What serves them.


def facts(channel: "asyncio.StreamWriter | asyncio.BaseTransport") -> None:
    """Ask what an application asks of its connection."""
    for name in ("peername", "sockname", "socket", "sslcontext"):
        channel.get_extra_info(name)


async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every line with much, and wait for it to be taken."""
    facts(writer)
    while await reader.readline():
        writer.write(LONG)
        facts(writer)
        await writer.drain()


async def talker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write without waiting and without looking, and end its side, as far as there is one."""
    for _ in range(20):
        writer.write(LONG[:1000])
        writer.writelines([b"a", b"b"])
        facts(writer)
        await asyncio.sleep(0)
    if writer.can_write_eof():
        writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()


async def listener(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read so many bytes, and then answer."""
    await reader.readexactly(100)
    writer.write(b"thank you")
    await writer.drain()


class Chatter(asyncio.Protocol):
    """The same as a protocol."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        facts(transport)

    def data_received(self, data: bytes) -> None:
        facts(self.transport)
        self.transport.write(LONG)

    def eof_received(self) -> None:
        facts(self.transport)
        self.transport.write(b"bye")


class Talker(Chatter):
    """Writes from the beginning, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(LONG)
        self.transport.write(LONG)

    def data_received(self, data: bytes) -> None:
        self.transport.close()

    def eof_received(self) -> None:
        facts(self.transport)


class Late(Talker):
    """Goes on writing for some turns, whether there is anybody or not, as a timer of its does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.write_later(20)

    def write_later(self, times: int) -> None:
        if times:
            asyncio.get_running_loop().call_soon(self.write_later, times - 1)
            self.transport.write(b"news")
        else:
            self.transport.close()


Maker = Callable[[object], Server]
MAKERS: dict[str, Maker] = {
    "stream-chatter": lambda where: StreamServer(where, chatter, drain_timeout=60),  # type: ignore[arg-type]
    "stream-talker": lambda where: StreamServer(where, talker, drain_timeout=60),  # type: ignore[arg-type]
    "stream-listener": lambda where: StreamServer(where, listener, drain_timeout=60),  # type: ignore[arg-type]
    "protocol-chatter": lambda where: ProtocolServer(where, Chatter, drain_timeout=60),  # type: ignore[arg-type]
    "protocol-talker": lambda where: ProtocolServer(where, Talker, drain_timeout=60),  # type: ignore[arg-type]
    "protocol-late": lambda where: ProtocolServer(where, Late, drain_timeout=60),  # type: ignore[arg-type]
    "reply": lambda where: ReplyServer(where, lambda _: LONG, drain_timeout=60),  # type: ignore[arg-type]
}


# Who leaves.


class Leaving(NamedTuple):
    """A client that sends something, takes so many turns of the event loop, and leaves in its way."""

    way: Callable[[socket.socket], object]
    turns: int
    says: bytes


def half(sock: socket.socket) -> None:
    """End our side only; the other is read to its end by whoever closes it."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


WAYS: tuple[Callable[[socket.socket], object], ...] = (socket.socket.close, reset, half)


def dial(server: Server) -> socket.socket:
    """Connect as far as the kernel can."""
    name = server.listeners[0].sockets[0].getsockname()
    family = socket.AF_UNIX if isinstance(name, str) else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    sock.connect(name)
    sock.setblocking(False)
    return sock


async def leave(sock: socket.socket, leaving: Leaving, tls: ssl.SSLContext | None) -> None:
    """Talk for some turns, and leave."""
    if tls is None:
        sock.send(leaving.says)
        for _ in range(leaving.turns):
            await asyncio.sleep(0)
    else:
        await talk_tls(sock, leaving, tls)
    leaving.way(sock)
    if leaving.way is half:
        with suppress(ConnectionError):
            while await asyncio.get_running_loop().sock_recv(sock, 65536):
                pass
        sock.close()


async def talk_tls(sock: socket.socket, leaving: Leaving, tls: ssl.SSLContext) -> None:
    """Do the same in TLS, a flight each turn; the handshake is a part of it."""
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    talk = tls.wrap_bio(coming, going, server_hostname="localhost")
    is_open = has_said = False
    for _ in range(leaving.turns):
        with suppress(ssl.SSLError):
            if not is_open:
                talk.do_handshake()
                is_open = True
            if not has_said:
                talk.write(leaving.says)
                has_said = True
            talk.read(4096)
        with suppress(OSError):
            sock.send(going.read())
        await asyncio.sleep(0)
        with suppress(OSError):
            coming.write(sock.recv(65536))


@pytest.fixture(autouse=True)
async def _by_the_loop() -> AsyncIterator[None]:
    """Have what callbacks raise logged, as in a daemon; the test runner would collect it."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(None)
    yield
    loop.set_exception_handler(before)


every_server = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in MAKERS.items()])


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log has of faults, the event loop's own complaints among them."""
    return [f"{each.name}: {each.getMessage()}" for each in caplog.records if each.levelno > logging.INFO]


async def come_and_leave(
    server: Server, draining: bool, turns: int, tls: ssl.SSLContext | None = None
) -> None:
    """Have clients leave after each number of turns, all at once and one by one; none may be left."""
    said = (b"", b"a word\n", b"half a w", b"a word\n" * 100)
    every = [Leaving(way, count, said[count % len(said)]) for way in WAYS for count in range(turns)]
    async with slowly(server):
        clients = [(dial(server), each) for each in every]
        stopping = None
        if draining:
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            stopping = Stopping(server)
            await stopping.begun()
        await asyncio.gather(*(leave(sock, each, tls) for sock, each in clients))
        if stopping is not None:
            await stopping.done()
        else:
            for each in every[:: len(every) // 9]:
                await leave(dial(server), each, tls)
        await until(lambda: server.connections == 0)
    assert not server._busy()


@every_server
@pytest.mark.parametrize(
    ("draining", "kind"), [(False, "tcp"), (True, "unix")], ids=["serving-tcp", "draining-unix"]
)
async def test_clients_leave_at_every_moment(
    make: Maker,
    draining: bool,
    kind: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before they are accepted, in a request, in an answer: the log has no fault, and none is counted."""
    where = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/s.sock"
    await come_and_leave(make(where), draining, turns=25)
    assert faults(caplog) == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Give the files of a certificate."""
    return make_files(tmp_path_factory.mktemp("tls"), trustme.CA(), trustme.KeyType.ECDSA)


LOSES_WRITES = (3, 12, 0) <= sys.version_info < (3, 12, 9) or (3, 13, 0) <= sys.version_info < (3, 13, 2)
"""Whether asyncio's own loop forgets what is written while a connection closes (CPython's gh-115514)."""


@pytest.mark.parametrize("name", MAKERS)
async def test_clients_leave_at_every_moment_of_tls(
    name: str, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """In the handshake too; a server serves on one of the loops and drains on the other, in turn."""
    is_asyncio = type(asyncio.get_running_loop()).__module__.startswith("asyncio")
    draining = is_asyncio == ([*MAKERS].index(name) % 2 == 0)
    if LOSES_WRITES and is_asyncio:
        pytest.skip(f"asyncio of Python {sys.version.split()[0]} loops for ever then: gh-115514")
    where = TlsEndpoint("127.0.0.1", 0, files.cert, files.key)
    await come_and_leave(MAKERS[name](where), draining, turns=20, tls=client_of(files))
    assert faults(caplog) == []


@pytest.mark.parametrize("kind", ["udp", "unix"])
async def test_senders_of_datagrams_leave(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before they are answered, which the network may tell the server: it serves on."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, address: object) -> None:
            for _ in range(10):
                self.transport.sendto(data, address)  # type: ignore[arg-type]

    where = "127.0.0.1:0" if kind == "udp" else f"unix:{tmp_path}/s.sock"
    async with DatagramServer(where, Echo) as server:
        target = server.listeners[0].sockets[0].getsockname()
        for number in range(20):
            with socket.socket(
                socket.AF_INET if kind == "udp" else socket.AF_UNIX, socket.SOCK_DGRAM
            ) as sender:
                sender.bind(("127.0.0.1", 0) if kind == "udp" else f"{tmp_path}/{number}")
                sender.sendto(b"gone", target)
            (tmp_path / str(number)).unlink(missing_ok=True)
            await asyncio.sleep(0)
        with socket.socket(socket.AF_INET if kind == "udp" else socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0) if kind == "udp" else f"{tmp_path}/last")
            sender.setblocking(False)
            sender.sendto(b"here", target)
            assert await asyncio.get_running_loop().sock_recv(sender, 100) == b"here"
    assert faults(caplog) == []


# Protocols and handlers that have faults: they are counted as well.


def broken(method: str) -> type[asyncio.Protocol]:
    """Make a protocol that writes much, and one of whose methods raises."""

    class Broken(Chatter):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(LONG)

    def fail(self: Broken, *_: object) -> None:
        raise ValueError(f"no {method} today")

    setattr(Broken, method, fail)
    return Broken


METHODS = ["connection_made", "data_received", "eof_received", "connection_lost", "pause_writing"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("kind", "draining"), [("tcp", True), ("tls", False)], ids=["tcp-draining", "tls-serving"]
)
async def test_a_protocol_that_fails_is_counted_down(
    method: str, kind: str, draining: bool, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever of its methods raises, its connection ends when its client leaves, or at the deadline."""
    tls = None if kind == "tcp" else client_of(files)
    where = "127.0.0.1:0" if tls is None else TlsEndpoint("127.0.0.1", 0, files.cert, files.key)
    server = ProtocolServer(where, broken(method), drain_timeout=0.5 if draining else 60)
    async with slowly(server):
        clients = [dial(server) for _ in WAYS]
        staying = dial(server)
        for sock, way in zip(clients, WAYS, strict=True):
            await leave(sock, Leaving(way, 20, b"a word\n"), tls)
        if not draining:
            reset(staying)
            await until(lambda: server.connections == 0)
    staying.close()
    assert server.connections == 0
    assert "gives up" not in caplog.text


async def test_a_handler_that_never_began_is_counted_down() -> None:
    """An application may cancel every task there is, also that of a connection that was just accepted."""

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server = StreamServer("127.0.0.1:0", never, drain_timeout=60)
    async with server:
        clients = [dial(server) for _ in range(3)]
        await until(lambda: server._handling)
        for task in tuple(server._handling.values()):
            task.cancel()
        await until(lambda: not server._busy())
    for client in clients:
        client.close()


async def test_what_refuses_to_end_does_not_keep_a_server_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A handler that goes on after it was cancelled is named in the log, and no more waited for."""
    free = asyncio.Event()

    async def stubborn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not free.is_set():
            with suppress(asyncio.CancelledError):
                await free.wait()

    server = StreamServer("127.0.0.1:0", stubborn, drain_timeout=0.01)
    async with server:
        client = dial(server)
        await until(lambda: server.connections)
        await Stopping(server).done()
    client.close()
    free.set()
    assert "abandons unending connections: 1 handler of closed connections" in caplog.text


def descriptors() -> int:
    """Count the descriptors that are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("reply", [lambda _: "text", lambda _: None], ids=["text", "nothing"])
@pytest.mark.parametrize("kind", ["tcp", "tls"])
async def test_a_reply_that_is_no_bytes_is_a_fault_that_is_counted_down(
    reply: Callable[[str], bytes], kind: str, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client gets an end, and the next one is served; no descriptor is lost."""
    tls = None if kind == "tcp" else client_of(files)
    where = "127.0.0.1:0" if tls is None else TlsEndpoint("127.0.0.1", 0, files.cert, files.key)
    server = ReplyServer(where, reply, drain_timeout=60)
    async with server:
        for number in range(4):
            await leave(dial(server), Leaving(half, 20, b"a word\n"), tls)
            await until(lambda: server.connections == 0)
            if number == 0:  # event loops open what they need for themselves
                before = descriptors()
        await until(lambda: descriptors() <= before)
    assert caplog.text.count("has no reply for") == 4


async def test_datagrams_that_nobody_takes_do_not_keep_a_server_from_stopping(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was written is sent until the drain deadline, and dropped then, with a warning."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.bind(f"{tmp_path}/full")

        class Flood(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                for _ in range(600):
                    transport.sendto(b"x" * 1000, f"{tmp_path}/full")  # type: ignore[attr-defined]

        with use_environment(ServerEnvironment(drain_timeout=0.05)):
            async with DatagramServer(f"unix:{tmp_path}/s.sock", Flood):
                pass
    assert "drops data not sent within 0.05 s" in caplog.text
    assert "gives up" not in caplog.text


async def test_a_reset_is_not_logged_by_the_garbage_collector(caplog: pytest.LogCaptureFixture) -> None:
    """A handler need not wait until its connection is closed, and may leave a knot of references."""
    knots: list[object] = []

    async def knotted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knot = [reader, writer]
        knot.append(knot)
        knots.append(knot)
        await reader.read()

    async with StreamServer("127.0.0.1:0", knotted, drain_timeout=60) as server:
        for _ in range(2):
            client = dial(server)
            await until(lambda: knots)
            reset(client)
            await until(lambda: not server._busy())
            knots.clear()
            gc.collect()
    assert faults(caplog) == []
