import asyncio
import logging
import os
import socket
import ssl
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trustme

from tamed.errors import ConfigurationError, ServiceFailed, ServiceMisuse, Unavailable
from tamed.net.endpoint import TcpEndpoint
from tests.net.poetry import (
    LONG_POEM,
    POEM,
    SMALL,
    ServerMaker,
    Stopping,
    address_of,
    connect,
    every_server,
    read,
    read_all,
    reply_server,
    reset,
    slowly,
    stream_server,
    until,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def authority() -> trustme.CA:
    """Return a certificate authority of this test's own."""
    return trustme.CA()


def certificate(authority: trustme.CA, folder: Path) -> Path:
    """Write a certificate for localhost and its key into one file."""
    file = folder / "server.pem"
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(file)
    return file


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Return a client's context that trusts an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@every_server
async def test_clients_are_served_and_counted(make: ServerMaker, caplog: pytest.LogCaptureFixture) -> None:
    """Each client gets the poem; the log tells the address, and the server what it did."""
    caplog.set_level(logging.INFO)
    server = make()
    assert server.summary == "127.0.0.1:0"
    async with server:
        host, port = address_of(server)
        assert server.addresses == (f"{host}:{port}",)
        assert server.summary == f"{host}:{port}"
        assert f"listening on {host}:{port}" in caplog.text
        for _ in range(3):
            with closing(connect(server)) as client:
                assert await read_all(client) == POEM
        await until(lambda: server.connections == 0)
        assert server.accepted == 3


@every_server
async def test_a_slow_reader_gets_all_of_a_long_poem(make: ServerMaker) -> None:
    """However little it takes at a time; meanwhile others are served, and it counts as open."""
    async with slowly(make(LONG_POEM)) as server:
        with closing(connect(server, receive_buffer=SMALL)) as slow:
            beginning = await read(slow, 100)
            with closing(connect(server)) as quick:
                assert await read_all(quick) == LONG_POEM
            assert server.connections >= 1
            assert beginning + await read_all(slow) == LONG_POEM
        await until(lambda: server.connections == 0)


@pytest.mark.parametrize("poem", [POEM, LONG_POEM], ids=["short", "long"])
@pytest.mark.parametrize("make", [stream_server, reply_server], ids=["stream", "reply"])
async def test_a_client_that_sends_before_it_reads_is_not_reset(make: ServerMaker, poem: bytes) -> None:
    """What it sent is thrown away, so the poem arrives to the last byte and ends well."""
    async with slowly(make(poem)) as server:
        with closing(connect(server, receive_buffer=SMALL)) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n" * 100)
            assert await read_all(client) == poem


@every_server
async def test_clients_that_leave_early_are_nothing_unusual(
    make: ServerMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that resets before or amid its poem is forgotten, without a warning; others are served."""
    async with slowly(make(LONG_POEM)) as server:
        for _ in range(3):
            reset(connect(server))
            client = connect(server, receive_buffer=SMALL)
            await read(client, 100)
            reset(client)
        with closing(connect(server)) as patient:
            assert await read_all(patient) == LONG_POEM
        await until(lambda: server.connections == 0)
        assert server.accepted == 7
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@every_server
async def test_a_limit_of_connections_lets_the_others_wait(make: ServerMaker) -> None:
    """At ``max_connections`` no more are accepted, until one is closed; nobody is refused."""
    poem = LONG_POEM[: 1 << 20]
    async with slowly(make(poem, max_connections=2)) as server:
        clients = [connect(server, receive_buffer=SMALL) for _ in range(6)]
        await until(lambda: server.connections == 2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert server.accepted == 2
        for client in clients:
            assert server.connections <= 2
            with closing(client):
                assert await read_all(client) == poem
        assert server.accepted == 6


@every_server
async def test_every_kind_of_address(make: ServerMaker, tmp_path: Path) -> None:
    """One server serves IPv4, IPv6, a unix socket and an abstract one."""
    path = tmp_path / "poem.sock"
    name = f"@tamed-test-{os.getpid()}-{id(path)}"
    server = make(endpoint=["127.0.0.1:0", TcpEndpoint("::1", 0), f"unix:{path}", f"unix:{name}"])
    async with server:
        assert server.addresses == (
            f"127.0.0.1:{address_of(server)[1]}",
            f"[::1]:{address_of(server, 1)[1]}",
            f"unix:{path}",
            f"unix:{name}",
        )
        for address in (address_of(server), address_of(server, 1)):
            client = socket.create_connection(address)
            client.setblocking(False)
            with closing(client):
                assert await read_all(client) == POEM
        for unix in (str(path), "\0" + name.removeprefix("@")):
            client = socket.socket(socket.AF_UNIX)
            client.connect(unix)
            client.setblocking(False)
            with closing(client):
                assert await read_all(client) == POEM
        await until(lambda: server.connections == 0)
    assert not path.exists()


@every_server
async def test_tls(make: ServerMaker, authority: trustme.CA, tmp_path: Path) -> None:
    """Through TLS too a slow reader gets all, and the end is a proper one."""
    async with slowly(
        make(LONG_POEM, endpoint=f"tls://127.0.0.1:0?cert={certificate(authority, tmp_path)}")
    ) as server:
        reader, writer = await asyncio.open_connection(
            *address_of(server), ssl=trusting(authority), server_hostname="localhost"
        )
        assert await reader.read() == LONG_POEM
        writer.close()
        await writer.wait_closed()
        await until(lambda: server.connections == 0)


@every_server
async def test_a_tls_handshake_that_fails_is_one_line(
    make: ServerMaker, authority: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that speaks no TLS, or leaves amid the handshake, is logged and forgotten."""
    caplog.set_level(logging.INFO, "tamed")
    async with make(endpoint=f"tls://127.0.0.1:0?cert={certificate(authority, tmp_path)}") as server:
        with closing(connect(server)) as stranger:
            peer = "{}:{}".format(*stranger.getsockname())
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            await until(lambda: server.accepted == 1 and server.connections == 0)
        await until(lambda: "before it began" in caplog.text)
        assert f"lost {peer} before it began: " in caplog.text
        reset(connect(server))
        await until(lambda: server.accepted == 2 and server.connections == 0)
        reader, writer = await asyncio.open_connection(
            *address_of(server), ssl=trusting(authority), server_hostname="localhost"
        )
        assert await reader.read() == POEM
        writer.close()
        await writer.wait_closed()
    assert "Traceback" not in caplog.text


@every_server
async def test_a_tls_client_that_never_shakes_hands_is_cut(
    make: ServerMaker, authority: trustme.CA, tmp_path: Path
) -> None:
    """At the drain deadline, and before it after the handshake timeout."""
    endpoint = f"tls://127.0.0.1:0?cert={certificate(authority, tmp_path)}"
    async with make(endpoint=endpoint, drain_timeout=0.05) as server:
        with closing(connect(server)) as silent:
            await until(lambda: server.connections == 1)
            await Stopping(server).done()
            assert server.connections == 0
            await _ended(silent)
    async with make(endpoint=endpoint, tls_handshake_timeout=0.05) as server:
        with closing(connect(server)) as silent:
            await until(lambda: server.accepted == 1 and server.connections == 0)
            await _ended(silent)


async def _ended(client: socket.socket) -> None:
    with suppress(ConnectionResetError):
        assert await read_all(client) == b""


async def test_an_address_in_use_fails_the_preparation() -> None:
    """The service fails in ``prepare``, with the address, and what was bound before is given back."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = stream_server(endpoint=["127.0.0.1:0", f"127.0.0.1:{port}"])
        with pytest.raises(ServiceFailed) as failed:
            async with server:
                pass
        assert failed.value.phase == "prepare"
        assert isinstance(failed.value.cause, Unavailable)
        assert f"127.0.0.1:{port} is in use" in str(failed.value)
        assert server.listeners == ()


async def test_bad_arguments_are_refused_when_it_is_made() -> None:
    """An endpoint that is none, no endpoint at all, and a limit of nothing."""
    with pytest.raises(ConfigurationError, match="endpoint 'localhost'"):
        stream_server(endpoint="localhost")
    with pytest.raises(ServiceMisuse, match="StreamServer without an endpoint"):
        stream_server(endpoint=[])
    with pytest.raises(ValueError, match="max_connections must be at least 1, not 0"):
        stream_server(max_connections=0)


async def test_the_stop_timeout_follows_from_the_drain_timeout() -> None:
    """The framework's deadline comes after the server's own."""
    async with stream_server(drain_timeout=120) as server:
        assert server.stop_timeout is not None
        assert server.stop_timeout > 120
