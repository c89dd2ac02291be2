import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from tamed.errors import ConfigurationError, ServiceFailed, Unavailable
from tamed.net.client import ClientService
from tamed.net.endpoint import TcpEndpoint, TlsEndpoint
from tamed.net.stream import StreamServer
from tamed.service.restart import Backoff, Restart
from tamed.service.service import MultiService
from tests.net.poetry import address_of, until

pytestmark = pytest.mark.anyio

AT_ONCE = Backoff(first=0.001, maximum=0.001)


class Listening(asyncio.Protocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def write(self, data: bytes) -> None:
        """Send something."""
        self.transport.write(data)  # type: ignore[attr-defined]


async def until_the_peer_leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet, and wait."""
    writer.write(b"hello")
    await reader.read()


async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End the connection at once."""


def server_at(
    endpoint: object = "127.0.0.1:0", handler: Callable[..., Awaitable[None]] = until_the_peer_leaves
) -> StreamServer:
    """Make a server that greets."""
    return StreamServer(endpoint, handler, drain_timeout=0)  # type: ignore[arg-type]


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_it_connects_and_says_so() -> None:
    """Waiting for the connection returns its protocol, at once if it is established."""
    async with server_at() as server:
        client = ClientService(server.addresses[0], Listening)
        assert client.summary == server.addresses[0]
        async with client:
            protocol = await client.wait_connected()
            await until(lambda: protocol.received == b"hello")
            assert await client.wait_connected() is protocol


async def test_the_stop_sends_what_was_written_and_waits_for_the_end() -> None:
    """After the stop the connection is closed, and the peer has got everything."""
    received = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read())

    async with server_at(handler=take) as server:
        async with ClientService(server.addresses[0], Listening) as client:
            protocol = await client.wait_connected()
            protocol.write(b"x" * 1_000_000)
        assert protocol.lost
        await until(lambda: received)
        assert received == [b"x" * 1_000_000]
        with pytest.raises(Unavailable, match="the client was stopped"):
            await client.wait_connected()


async def test_a_lost_connection_is_made_anew(caplog: pytest.LogCaptureFixture) -> None:
    """Each connection has its own protocol, and each loss is logged."""
    made: list[Listening] = []

    def factory() -> Listening:
        made.append(Listening())
        return made[-1]

    async with server_at(handler=leave) as server:
        async with ClientService(server.addresses[0], factory, backoff=AT_ONCE) as client:
            await until(lambda: len(made) > 3)
            assert await client.wait_connected() in made[3:]
        assert all(protocol.lost for protocol in made)
    assert "client-service lost 127.0.0.1:" in caplog.text


async def test_it_waits_for_a_server_that_comes_later(caplog: pytest.LogCaptureFixture) -> None:
    """Attempts continue until one succeeds; each failure is logged with its reason and the wait."""
    port = free_port()
    async with ClientService(f"127.0.0.1:{port}", Listening, backoff=AT_ONCE) as client:
        await until(lambda: caplog.text.count("next attempt in") > 2)
        assert f"client-service cannot reach 127.0.0.1:{port}: Connection refused" in caplog.text
        assert client.summary == f"127.0.0.1:{port}, not connected: Connection refused"
        waiting = asyncio.ensure_future(client.wait_connected())
        async with server_at(f"127.0.0.1:{port}"):
            await waiting
            assert client.summary == f"127.0.0.1:{port}"
            await client.stop()


async def test_the_waits_grow_and_begin_anew_after_a_success() -> None:
    """The backoff counts failures in a row."""
    asked: list[int] = []

    class Counting(Backoff):
        def delay(self, attempt: int, random: Callable[[], float] = lambda: 0.5) -> float:
            asked.append(attempt)
            return 0.001

    port = free_port()
    async with ClientService(f"127.0.0.1:{port}", Listening, backoff=Counting()):
        await until(lambda: len(asked) >= 3)
        assert asked[:3] == [1, 2, 3]
        async with server_at(f"127.0.0.1:{port}", leave):
            await until(lambda: 1 in asked[3:])


async def test_the_waits_grow_while_the_server_closes_at_once() -> None:
    """They begin anew after a connection that lasts longer."""
    asked: list[int] = []
    lasting = [0.0]

    class Counting(Backoff):
        def delay(self, attempt: int, random: Callable[[], float] = lambda: 0.5) -> float:
            asked.append(attempt)
            return 0.1

    async def last(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(lasting[-1])

    async with (
        server_at(handler=last) as server,
        ClientService(server.addresses[0], Listening, backoff=Counting()),
    ):
        await until(lambda: 3 in asked)
        lasting.append(0.2)
        asked.clear()
        await until(lambda: 1 in asked)


async def test_the_limit_fails_the_service() -> None:
    """After the limit of failures in a row, the service and all waits for a connection fail."""
    port = free_port()
    client = ClientService(f"127.0.0.1:{port}", Listening, backoff=AT_ONCE, limit=3)
    waiting: list[asyncio.Future[Listening]] = []

    async def run() -> None:
        async with client:
            waiting.append(asyncio.ensure_future(client.wait_connected()))
            await asyncio.Event().wait()

    with pytest.raises(ServiceFailed, match="Connection refused, after 3 attempts") as failed:
        await run()
    assert isinstance(failed.value.cause, Unavailable)
    with pytest.raises(Unavailable) as heard:
        await waiting[0]
    assert str(heard.value) == f"no connection to 127.0.0.1:{port}: Connection refused, after 3 attempts"


async def test_a_restart_policy_begins_anew() -> None:
    """A client that was given up is started again, as any service is."""
    port = free_port()
    client = ClientService(f"127.0.0.1:{port}", Listening, backoff=AT_ONCE, limit=1)
    client.restart = Restart("on-failure", limit=None, backoff=AT_ONCE)
    async with MultiService("parent", client):
        await until(lambda: client.restarts > 2)
        async with server_at(f"127.0.0.1:{port}"):
            while True:
                try:
                    await client.wait_connected()
                    break
                except Unavailable:
                    await asyncio.sleep(0.001)
            await client.lifecycle.stop()


async def test_waiting_for_a_client_that_does_not_run_fails() -> None:
    """Waiting for a connection raises an error instead of blocking for ever."""
    client = ClientService("127.0.0.1:1", Listening)
    with pytest.raises(Unavailable, match=r"no connection to 127\.0\.0\.1:1: the client is not running"):
        await client.wait_connected()


async def test_stopping_ends_the_waiting() -> None:
    """A stop raises an error in each wait for a connection."""
    async with ClientService(f"127.0.0.1:{free_port()}", Listening, backoff=AT_ONCE) as client:
        waiting = asyncio.ensure_future(client.wait_connected())
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="the client was stopped"):
        await waiting


async def test_a_protocol_that_closes_at_once_is_a_loss_like_any_other() -> None:
    """Closing in ``connection_made`` leaves no socket behind, and the client tries again."""
    made = []

    class Curt(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(self)
            transport.close()

    async with server_at() as server, ClientService(server.addresses[0], Curt, backoff=AT_ONCE):
        await until(lambda: len(made) >= 3)


@pytest.mark.parametrize("rounds", range(6))
async def test_a_client_may_be_stopped_at_any_moment(rounds: int) -> None:
    """However far it has got with its connection, there is none afterwards."""
    for use_tls in (False, True):
        async with server_at() as server:
            context = ssl.create_default_context() if use_tls else False
            async with ClientService(server.addresses[0], Listening, ssl=context):
                for _ in range(rounds):
                    await asyncio.sleep(0)
            await until(lambda: server.connections == 0)


async def test_a_factory_that_fails_fails_the_service() -> None:
    """That is no failure of the network, and trying again would not help."""

    def factory() -> Listening:
        raise ValueError("no protocol today")

    async with server_at() as server:
        with pytest.raises(ServiceFailed, match="no protocol today"):
            async with ClientService(server.addresses[0], factory):
                await asyncio.Event().wait()


async def test_unix_sockets(tmp_path: Path) -> None:
    """By path, by a path too long for the kernel, and in the abstract namespace."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    names = (
        f"unix:{tmp_path / 'x.sock'}",
        f"unix:{deep / 'x.sock'}",
        f"unix:@tamed-{os.getpid()}-{id(deep)}",
    )
    for name in names:
        async with server_at(name), ClientService(name, Listening) as client:
            protocol = await client.wait_connected()
            await until(lambda: protocol.received == b"hello")  # noqa: B023
    with pytest.raises(ServiceFailed, match="No such file or directory, after 1 attempt"):
        async with ClientService(f"unix:{tmp_path / 'y.sock'}", Listening, limit=1):
            await asyncio.Event().wait()


async def test_tls_verifies_the_server(tmp_path: Path) -> None:
    """The name and the authority are checked, and a server that fails is a failed attempt."""
    authority = trustme.CA()
    file = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    async with server_at(f"tls://127.0.0.1:0?cert={file}") as server:
        port = address_of(server)[1]
        async with ClientService(f"localhost:{port}", Listening, ssl=trusting) as client:
            protocol = await client.wait_connected()
            await until(lambda: protocol.received == b"hello")
        assert protocol.lost
        for endpoint, context in ((f"127.0.0.1:{port}", trusting), (f"localhost:{port}", True)):
            with pytest.raises(ServiceFailed, match="certificate verify failed"):
                async with ClientService(endpoint, Listening, ssl=context, limit=1):
                    await asyncio.Event().wait()


async def test_a_tls_endpoint_shows_its_certificate(tmp_path: Path) -> None:
    """The client sends its certificate to a server that requires one."""
    authority = trustme.CA()
    for name in ("localhost", "client"):
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = f"cert={tmp_path / 'localhost.pem'}&client_ca={tmp_path / 'ca.pem'}"
    os.environ["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    try:
        async with server_at(f"tls://127.0.0.1:0?{files}") as server:
            endpoint = TlsEndpoint("localhost", address_of(server)[1], tmp_path / "client.pem")
            async with ClientService(endpoint, Listening) as client:
                protocol = await client.wait_connected()
                await until(lambda: protocol.received == b"hello")
    finally:
        del os.environ["SSL_CERT_FILE"]


async def test_a_bad_certificate_fails_the_preparation(tmp_path: Path) -> None:
    """The error is raised before the client connects."""
    endpoint = TlsEndpoint("localhost", 1, tmp_path / "missing.pem")
    with pytest.raises(ServiceFailed, match=r"missing\.pem: No such file or directory"):
        async with ClientService(endpoint, Listening):
            pass
    endpoint = TlsEndpoint("localhost", 1, tmp_path / "x.pem", client_ca=tmp_path / "ca.pem")
    with pytest.raises(ServiceFailed, match="client_ca is for servers"):
        async with ClientService(endpoint, Listening):
            pass


async def test_a_server_that_does_not_answer_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """``connect_timeout`` covers the TLS handshake."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ServiceFailed, match=r"no answer within 0\.05 s, after 1 attempt"):
            async with ClientService(f"127.0.0.1:{port}", Listening, ssl=True, connect_timeout=0.05, limit=1):
                await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("endpoint", "use_tls", "why"),
    [
        ("fd://3", False, "inherited sockets are for servers"),
        ("systemd://", False, "inherited sockets are for servers"),
        (":10000", False, "it means every interface"),
        ("unix:/run/x.sock", True, "there is no TLS on a unix socket"),
        ("localhost", False, "endpoint 'localhost'"),
    ],
)
def test_endpoints_that_nobody_can_connect_to(endpoint: str, use_tls: bool, why: str) -> None:
    """They are refused when the client is made."""
    with pytest.raises(ConfigurationError, match=why):
        ClientService(endpoint, Listening, ssl=use_tls)


async def test_a_peer_that_takes_nothing_does_not_keep_a_client_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Data that the peer does not read within some seconds is dropped, with a warning."""

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with server_at(handler=ignore) as server:
        async with ClientService(
            TcpEndpoint("127.0.0.1", address_of(server)[1]), Listening, close_timeout=0.05
        ) as client:
            protocol = await client.wait_connected()
            protocol.write(b"x" * 50_000_000)
        assert protocol.lost
    assert "which accepts no data" in caplog.text
