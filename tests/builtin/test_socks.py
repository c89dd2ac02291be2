import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

import pytest

from tamed.builtin._socks.messages import encode_datagram, parse_datagram
from tamed.builtin._socks.rules import TargetPattern
from tamed.builtin.socks import Options, socks
from tamed.net.endpoint import Endpoint
from tamed.net.server import Server
from tamed.plugins.values import Duration
from tamed.service.service import Service
from tests.builtin.streams import (
    Client,
    address,
    connected,
    echo,
    reset,
    server,
    tell_the_sum,
    until,
    unused_port,
)
from tests.passwords import cheap_hash

pytestmark = pytest.mark.anyio

HELLO = b"\x05\x01\x00"
GRANTED4 = bytes([0, 90]) + bytes(6)
REJECTED4 = bytes([0, 91]) + bytes(6)
LOOPBACK = [TargetPattern.parse("127.0.0.0/8")]
SOON = Duration("50ms")


@asynccontextmanager
async def proxy(**options: Any) -> AsyncIterator[Service]:
    """Run a proxy on a free port that lets its clients reach the loopback interface."""
    settings: dict[str, Any] = {"listen": [Endpoint.parse("127.0.0.1:0")], "allow": LOOPBACK, **options}
    service = socks(Options(**settings))
    for part in service.walk():
        if isinstance(part, Server):
            part.drain_timeout = 0.2
    async with service:
        yield service


def request5(where: tuple[str, int], command: int = 1) -> bytes:
    """Ask for an IPv4 address in version 5."""
    return bytes([5, command, 0, 1]) + socket.inet_aton(where[0]) + where[1].to_bytes(2)


def request4(where: tuple[str, int], user: bytes = b"me") -> bytes:
    """Ask for an IPv4 address in version 4."""
    return bytes([4, 1]) + where[1].to_bytes(2) + socket.inet_aton(where[0]) + user + b"\0"


def request4a(name: bytes, port: int) -> bytes:
    """Ask for a name in version 4a."""
    return bytes([4, 1]) + port.to_bytes(2) + bytes([0, 0, 0, 1]) + b"me\0" + name + b"\0"


async def reply5(client: Client) -> tuple[int, tuple[str, int]]:
    """Read a reply with an IPv4 address: the code and the address."""
    version, code, _, kind, *_ = head = await client.reader.readexactly(10)
    assert (version, kind) == (5, 1)
    return code, (socket.inet_ntoa(head[4:8]), int.from_bytes(head[8:]))


async def granted5(client: Client, where: tuple[str, int]) -> None:
    """Go through version 5 to a target that is reached."""
    await client.send(HELLO)
    await client.expect(b"\x05\x00")
    await client.send(request5(where))
    assert (await reply5(client))[0] == 0


async def test_version_5_relays_both_ways_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    """All that is sent arrives, a half-closed connection answers, and a line tells how much it was."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    payload = bytes(range(256)) * 8192
    async with server(tell_the_sum) as target, proxy() as service, connected(service) as client:
        await granted5(client, address(target))
        await client.send(payload)
        client.writer.write_eof()
        assert await client.read_all() == b"2097152 bytes"
        port = address(target)[1]
    line = next(message for message in caplog.messages if "sent" in message)
    assert f" to 127.0.0.1:{port}: " in line
    assert ": 2097152 bytes sent, 13 received, " in line
    assert line.endswith("s, closed")


@pytest.mark.both_loops
async def test_everything_at_once() -> None:
    """A client that does not wait for answers is served as well: no byte belongs to two messages."""
    async with server() as target, proxy() as service, connected(service) as client:
        await client.send(HELLO + request5(address(target)) + b"early")
        await client.expect(b"\x05\x00")
        assert (await reply5(client))[0] == 0
        await client.expect(b"early")


async def test_versions_4_and_4a() -> None:
    """To an address, and to a name that the proxy looks up."""
    async with server() as target, proxy() as service:
        host, port = address(target)
        for request in (request4((host, port)), request4a(b"localhost", port)):
            async with connected(service) as client:
                await client.send(request + b"hello")
                await client.expect(GRANTED4 + b"hello")


@pytest.mark.parametrize(
    ("target", "code"),
    [("169.254.169.254", 2), ("0.0.0.0", 2), ("224.0.0.1", 2), ("8.8.8.8", 2)],
)
async def test_refused_targets(target: str, code: int, caplog: pytest.LogCaptureFixture) -> None:
    """The client gets its version's error code, and the log has the reason."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    async with proxy() as service:
        async with connected(service) as client:
            await client.send(HELLO + request5((target, 80)))
            await client.expect(b"\x05\x00")
            assert (await reply5(client))[0] == code
            assert await client.read_all() == b""
        async with connected(service) as client:
            await client.send(request4((target, 80)))
            assert await client.read_all() == REJECTED4
    assert f"cannot reach {target}:80: " in caplog.text


async def test_the_machine_itself_is_refused_unless_allowed() -> None:
    """By default neither its address nor a name that resolves to it is reached."""
    async with server() as target, proxy(allow=[]) as service:
        port = address(target)[1]
        for request in (request4(("127.0.0.1", port)), request4a(b"localhost", port)):
            async with connected(service) as client:
                await client.send(request)
                assert await client.read_all() == REJECTED4
    assert target.accepted == 0


async def test_targets_that_cannot_be_reached() -> None:
    """A refused connection, a name that is not known, and commands that there are not."""
    async with proxy(allow=[*LOOPBACK, TargetPattern.parse("*")]) as service:
        with unused_port() as port:
            for request, code in (
                (request5(("127.0.0.1", port)), 5),
                (b"\x05\x01\0\x03\x07invalid\0\x50", 4),
                (b"\x05\x01\0\x03\x0ea..example.org\0\x50", None),
                (request5(("127.0.0.1", port), command=2), 7),
                (request5(("127.0.0.1", port), command=99), 7),
            ):
                async with connected(service) as client:
                    await client.send(HELLO + request)
                    await client.expect(b"\x05\x00")
                    if code is None:
                        assert await client.read_all() == b""
                    else:
                        assert (await reply5(client))[0] == code


@pytest.mark.parametrize(
    "rubbish",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\xff" * 100_000, b"\x05\x00", b"\x04" + b"u" * 100_000],
    ids=["http", "zeros", "ones", "no-method", "endless-user"],
)
async def test_rubbish_ends_the_connection(rubbish: bytes) -> None:
    """At once, and nothing is sent but a refusal; the next client is served."""
    async with server() as target, proxy() as service:
        async with connected(service) as client:
            client.writer.write(rubbish)
            assert await client.read_all() in (b"", b"\x05\xff")
        async with connected(service) as client:
            await granted5(client, address(target))


async def test_silence_ends_the_connection() -> None:
    """A client that connects and asks for nothing, or for half of something, is cut."""
    async with proxy(handshake_timeout=SOON) as service:
        for half in (b"", b"\x05", HELLO, HELLO + b"\x05\x01", b"\x04\x01\0\x50"):
            async with connected(service) as client:
                client.writer.write(half)
                assert await client.read_all() in (b"", b"\x05\x00")


@pytest.mark.both_loops
async def test_leaving_at_every_byte(caplog: pytest.LogCaptureFixture) -> None:
    """A client may leave anywhere in its request; that is nothing to complain of, and nothing stays open."""
    async with server() as target, proxy() as service:
        inner = next(part for part in service.walk() if isinstance(part, Server))
        for message in (HELLO + request5(address(target)), request4a(b"localhost", address(target)[1])):
            for end in range(len(message) + 1):
                async with connected(service) as client:
                    await client.send(message[:end])
        await until(lambda: not inner.connections and not target.connections)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_an_idle_connection_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """When nothing moves in either direction for as long as the option says."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    async with server() as target, proxy(idle_timeout=SOON) as service, connected(service) as client:
        await granted5(client, address(target))
        assert await client.read_all() == b""
    assert "0 bytes sent, 0 received" in caplog.text
    assert "nothing moved for 0.05 s" in caplog.text


async def test_too_many_of_one_address_are_refused() -> None:
    """Those that are there are served on."""
    async with (
        server() as target,
        proxy(max_connections_per_address=2) as service,
        connected(service) as one,
        connected(service) as two,
    ):
        await granted5(one, address(target))
        await granted5(two, address(target))
        for _ in range(50):
            async with connected(service) as third:
                assert await third.read_all() == b""
        await one.send(b"still here")
        await one.expect(b"still here")


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """Write a file with one user."""
    path = tmp_path / "users"
    path.touch(0o600)
    path.write_text(f"john:{cheap_hash('busy old fool')}\n")
    return path


def login(user: bytes, password: bytes) -> bytes:
    """Log in as RFC 1929 has it."""
    return bytes([1, len(user)]) + user + bytes([len(password)]) + password


async def test_users(users: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a file of users a password is required, and SOCKS 4 has none."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    async with server() as target, proxy(users=users) as service:
        async with connected(service) as client:
            await client.send(b"\x05\x02\x00\x02")
            await client.expect(b"\x05\x02")
            await client.send(login(b"john", b"busy old fool"))
            await client.expect(b"\x01\x00")
            await client.send(request5(address(target)))
            assert (await reply5(client))[0] == 0
        async with connected(service) as client:
            await client.send(b"\x05\x01\x02" + login(b"john", b"unruly\nsun"))
            assert await client.read_all() == b"\x05\x02\x01\x01"
        async with connected(service) as client:
            await client.send(HELLO)
            assert await client.read_all() == b"\x05\xff"
        async with connected(service) as client:
            await client.send(request4(address(target)))
            assert await client.read_all() == REJECTED4
    assert target.accepted == 1
    assert "('john') to 127.0.0.1:" in caplog.text
    assert "is refused: wrong password for 'john'" in caplog.text


async def test_guesses_at_once(users: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the guesses that one address makes at once not each is verified, and all are refused."""
    async with proxy(users=users) as service:

        async def guess() -> bytes:
            async with connected(service) as client:
                await client.send(b"\x05\x01\x02" + login(b"john", b"unruly sun"))
                return await client.read_all()

        assert set(await asyncio.gather(*(guess() for _ in range(10)))) == {b"\x05\x02\x01\x01"}
    assert "is refused: too many failed logins from your network: try again in" in caplog.text
    assert caplog.text.count("is refused") == 10


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"iface": "0.0.0.0"}, True),
        ({"iface": "192.0.2.1"}, True),
        ({"listen": [Endpoint.parse("unix:@proxy")]}, True),
        ({"iface": "0.0.0.0", "open": True}, False),
        ({"iface": "0.0.0.0", "users": Path("users")}, False),
        ({"iface": "localhost"}, False),
        ({"listen": [Endpoint.parse("unix:proxy?mode=660")]}, False),
    ],
)
def test_an_open_proxy_has_to_be_meant(settings: dict[str, Any], refused: bool) -> None:
    """Without users it listens where others can connect only if that is said."""
    if refused:
        with pytest.raises(ValueError, match=r"any client could use this machine as a proxy; use --users"):
            Options(**settings)
    else:
        Options(**settings)


async def udp_echo() -> tuple[asyncio.DatagramTransport, tuple[str, int]]:
    """Open a UDP port that sends everything back."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data.upper(), addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Echo, local_addr=("127.0.0.1", 0)
    )
    return transport, transport.get_extra_info("sockname")


def udp_socket() -> socket.socket:
    """Return a socket for packets of the loopback interface."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


@pytest.mark.both_loops
async def test_udp(caplog: pytest.LogCaptureFixture) -> None:
    """Packets go to an address or a name and come back with the target's address."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    loop = asyncio.get_running_loop()
    echoing, where = await udp_echo()
    with closing(echoing), closing(udp_socket()) as sock:
        async with proxy() as service, connected(service) as client:
            await client.send(HELLO + request5(("0.0.0.0", 0), command=3))
            await client.expect(b"\x05\x00")
            code, relay = await reply5(client)
            assert code == 0
            name = b"\0\0\0\x03\x09localhost" + where[1].to_bytes(2)
            for header in (encode_datagram(*where, b""), name, encode_datagram(*where, b"")):
                sock.sendto(header + b"sun", relay)
                answer = parse_datagram(await loop.sock_recv(sock, 65536))
                assert (answer.target.host, answer.target.port, answer.payload) == (*where, b"SUN")
    assert "by UDP: 9 bytes sent, 9 received" in caplog.text


async def test_udp_drops_what_it_may_not_take() -> None:
    """Fragments, rubbish, refused targets, packets of others to the relay and to the client."""
    loop = asyncio.get_running_loop()
    echoing, where = await udp_echo()
    with closing(echoing), closing(udp_socket()) as sock, closing(udp_socket()) as stranger:
        async with proxy() as service, connected(service) as client:
            await client.send(HELLO + request5(("0.0.0.0", 0), command=3))
            await client.expect(b"\x05\x00")
            _, relay = await reply5(client)
            good = encode_datagram(*where, b"sun")
            for bad in (
                b"",
                b"\0\0",
                bytes(3) + b"\x07",
                b"\0\0\x01" + good[3:],
                encode_datagram("169.254.169.254", 80, b"sun"),
                encode_datagram("8.8.8.8", 53, b"sun"),
            ):
                sock.sendto(bad, relay)
            sock.sendto(good, relay)
            assert parse_datagram(await loop.sock_recv(sock, 65536)).payload == b"SUN"
            stranger.sendto(encode_datagram(*where, b"moon"), relay)
            sock.sendto(encode_datagram(*where, b"again"), relay)
            assert parse_datagram(await loop.sock_recv(sock, 65536)).payload == b"AGAIN"
            with pytest.raises(BlockingIOError):
                stranger.recv(100)


async def test_udp_ends_with_its_connection() -> None:
    """The relay's port is closed when the client's connection is, or is not wanted at all."""
    async with proxy() as service:
        async with connected(service) as client:
            await client.send(HELLO + request5(("0.0.0.0", 0), command=3))
            await client.expect(b"\x05\x00")
            _, relay = await reply5(client)
        await until(lambda: _is_free(relay))
    async with proxy(udp=False) as service, connected(service) as client:
        await client.send(HELLO + request5(("0.0.0.0", 0), command=3))
        await client.expect(b"\x05\x00")
        assert (await reply5(client))[0] == 7


def _is_free(where: tuple[str, int]) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        try:
            sock.bind(where)
        except OSError:
            return False
        return True


async def test_udp_that_is_idle_ends() -> None:
    """When no packet has gone through for as long as the option says."""
    async with proxy(idle_timeout=SOON) as service, connected(service) as client:
        await client.send(HELLO + request5(("0.0.0.0", 0), command=3))
        await client.expect(b"\x05\x00")
        assert (await reply5(client))[0] == 0
        assert await client.read_all() == b""


async def test_on_a_unix_socket(tmp_path: Path) -> None:
    """It serves there too, without packets."""
    path = tmp_path / "socks.sock"
    async with server() as target, proxy(listen=[Endpoint.parse(f"unix:{path}")]):
        for command, code in ((1, 0), (3, 1)):
            client = Client(*await asyncio.open_unix_connection(path))
            await client.send(HELLO + request5(address(target), command))
            await client.expect(b"\x05\x00")
            assert (await reply5(client))[0] == code
            client.writer.transport.abort()


async def test_a_target_that_resets() -> None:
    """The client is reset too, and not left waiting."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    async with server(leave) as target, proxy() as service, connected(service) as client:
        await client.send(HELLO + request5(address(target)))
        await client.expect(b"\x05\x00")
        await reply5(client)
        assert await client.read_all() == b""


async def test_a_stop_cuts_what_stays_open(caplog: pytest.LogCaptureFixture) -> None:
    """At the drain deadline, and the line in the log is there."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    async with server(echo) as target, proxy() as service:
        client = Client(*await asyncio.open_connection(*address(service)))
        await granted5(client, address(target))
        await client.send(b"x")
        await client.expect(b"x")
    client.writer.transport.abort()
    assert "1 bytes sent, 1 received" in caplog.text
