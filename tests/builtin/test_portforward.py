import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tamed.builtin._upstreams import Balancer, Health, Upstream
from tamed.builtin.portforward import Options, portforward
from tamed.errors import ConfigurationError, MissingInput, ServiceFailed
from tamed.net.endpoint import Endpoint
from tamed.net.proxy_header import IpEnd, IpEnds, Network, ProxyHeader, encode_v1, encode_v2
from tamed.net.server import Server
from tamed.net.stream import StreamServer
from tamed.plugins.values import Duration
from tamed.service.service import Service
from tests.builtin.streams import Client, address, connected, echo, server, tell_the_sum, until, unused_port

pytestmark = pytest.mark.anyio

Settings = dict[str, Any]

LOOPBACK = [Network.parse("127.0.0.0/8")]
SOON = Duration("50ms")
ENDS = IpEnds(IpEnd("192.0.2.1", 1234), IpEnd("192.0.2.2", 443))


@asynccontextmanager
async def forward(
    *to: StreamServer | str, listen: str = "127.0.0.1:0", **options: Any
) -> AsyncIterator[Service]:
    """Run a forwarder on a free port, without checks unless a test asks for them."""
    upstreams = [Endpoint.parse(one if isinstance(one, str) else one.summary) for one in to]
    settings: dict[str, Any] = {"check_interval": Duration(0), **options}
    service = portforward(Options(listen=[Endpoint.parse(listen)], to=upstreams, **settings))
    for part in service.walk():
        if isinstance(part, Server):
            part.drain_timeout = 0.2
    async with service:
        yield service


async def tell_who(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what comes in first, which is a PROXY header here, and close."""
    writer.write(await reader.read(65536))


def answering(word: bytes) -> StreamServer:
    """Make a server that says a word and waits for the client's end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word)
        await reader.read()

    return server(answer)


@pytest.mark.both_loops
async def test_tcp_and_the_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Both ways, with an answer after the client's end; the bytes are counted."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    async with server(tell_the_sum) as target, forward(target) as service, connected(service) as client:
        await client.send(b"sun")
        client.writer.write_eof()
        assert await client.read_all() == b"3 bytes"
        where = target.summary
        own = "{}:{}".format(*client.writer.get_extra_info("sockname"))
    assert f"{own} to {where}: 3 bytes sent, 7 received, " in caplog.text


async def test_unix_to_unix(tmp_path: Path) -> None:
    """From one socket's file to another."""
    front, back = tmp_path / "front.sock", tmp_path / "back.sock"
    async with server(echo, f"unix:{back}"), forward(f"unix:{back}", listen=f"unix:{front}"):
        client = Client(*await asyncio.open_unix_connection(front))
        await client.send(b"sun")
        await client.expect(b"sun")
        client.writer.transport.abort()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> Path:
    """Write a certificate for ``upstream.example``, with its key."""
    pem = tmp_path / "upstream.pem"
    authority.issue_cert("upstream.example").private_key_and_cert_chain_pem.write_to_path(str(pem))
    return pem


async def test_tls_to_the_clients(certificate: Path, authority: trustme.CA) -> None:
    """A tls:// endpoint in front of a server that speaks none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    async with (
        server() as target,
        forward(target, listen=f"tls://127.0.0.1:0?cert={certificate}") as service,
        connected(service, ssl=context, server_hostname="upstream.example") as client,
    ):
        await client.send(b"sun")
        await client.expect(b"sun")


async def test_tls_to_the_upstream(certificate: Path, ca: Path) -> None:
    """Verified against an authority and a name; or not at all, if one says so."""
    async with server(echo, f"tls://127.0.0.1:0?cert={certificate}") as target:
        verified: Settings = {"tls_ca": ca, "tls_name": "upstream.example"}
        for options in (verified, {"tls_verify": False}):
            async with forward(target, tls=True, **options) as service, connected(service) as client:
                await client.send(b"sun")
                await client.expect(b"sun")


async def test_an_upstream_that_is_not_who_it_should_be(
    certificate: Path, ca: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another authority, or another name: nothing is sent there, and the log says why."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    async with server(echo, f"tls://127.0.0.1:0?cert={certificate}") as target:
        other: Settings = {"tls_ca": ca, "tls_name": "other.example"}
        for options in ({}, {"tls_ca": ca}, other):
            async with forward(target, tls=True, **options) as service, connected(service) as client:
                await client.send(b"secret")
                assert await client.read_all() == b""
    assert caplog.text.count("no upstream can be reached") == 3
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


async def test_a_certificate_for_the_upstream(
    certificate: Path, ca: Path, authority: trustme.CA, tmp_path: Path
) -> None:
    """An upstream that asks for one is shown it."""
    own = tmp_path / "own.pem"
    authority.issue_cert("forwarder.example").private_key_and_cert_chain_pem.write_to_path(str(own))
    endpoint = f"tls://127.0.0.1:0?cert={certificate}&client_ca={ca}"
    options: Settings = {"tls": True, "tls_ca": ca, "tls_name": "upstream.example"}
    async with server(echo, endpoint) as target:
        async with forward(target, tls_cert=own, **options) as service, connected(service) as client:
            await client.send(b"sun")
            await client.expect(b"sun")
        async with forward(target, **options) as service, connected(service) as client:
            await client.send(b"sun")
            assert await client.read_all() == b""


@pytest.mark.parametrize("kind", [ProxyHeader.V1, ProxyHeader.V2])
async def test_the_upstream_gets_the_address_of_the_client(kind: ProxyHeader) -> None:
    """In a header of either version, before the client's own bytes."""
    async with (
        server(tell_who) as target,
        forward(target, proxy_to=kind) as service,
        connected(service) as client,
    ):
        own, front = (IpEnd(*client.writer.get_extra_info(name)) for name in ("sockname", "peername"))
        assert await client.read_all() == kind.encode(IpEnds(own, front))


@pytest.mark.parametrize("header", [encode_v1(ENDS), encode_v2(ENDS)], ids=["v1", "v2"])
async def test_a_trusted_proxy_is_believed(header: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whom it names is passed on, and is in the log; the bytes behind the header are the client's."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    options: Settings = {"proxy_from": LOOPBACK, "proxy_to": ProxyHeader.V1}
    async with server() as target, forward(target, **options) as service, connected(service) as client:
        await client.send(header + b"sun")
        await client.expect(encode_v1(ENDS) + b"sun")
    assert "192.0.2.1:1234 by 127.0.0.1:" in caplog.text


async def test_others_are_not_believed() -> None:
    """Bytes that look like a header are forwarded as data."""
    trusted = [Network.parse("10.0.0.0/8"), Network.parse("unix")]
    async with (
        server() as target,
        forward(target, proxy_from=trusted) as service,
        connected(service) as client,
    ):
        await client.send(encode_v1(ENDS))
        await client.expect(encode_v1(ENDS))


@pytest.mark.parametrize(
    "sent", [b"", b"PROXY TCP4 1.2", b"GET / HTTP/1.0\r\n\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21"]
)
async def test_a_trusted_proxy_must_send_a_header(sent: bytes) -> None:
    """Silence, half a header and none at all end the connection; the upstream hears nothing of it."""
    options: Settings = {"proxy_from": LOOPBACK, "handshake_timeout": SOON}
    async with server() as target, forward(target, **options) as service:
        async with connected(service) as client:
            client.writer.write(sent)
            assert await client.read_all() == b""
        assert target.accepted == 0


@pytest.mark.both_loops
async def test_leaving_at_every_byte(caplog: pytest.LogCaptureFixture) -> None:
    """A client may leave anywhere; that is nothing to complain of, and nothing stays open."""
    async with server() as target, forward(target, proxy_from=LOOPBACK) as service:
        inner = next(part for part in service.walk() if isinstance(part, Server))
        for message in (encode_v1(ENDS), encode_v2(ENDS)):
            for end in range(len(message) + 1):
                async with connected(service) as client:
                    await client.send(message[:end])
        await until(lambda: not inner.connections and not target.connections)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_connections_go_to_the_upstream_with_the_fewest() -> None:
    """Of several with as few, in turn."""
    async with answering(b"a") as a, answering(b"b") as b, forward(a, b) as service:
        clients: dict[bytes, list[Client]] = {b"a": [], b"b": []}

        async def another() -> bytes:
            client = Client(*await asyncio.open_connection(*address(service)))
            word = await client.reader.readexactly(1)
            clients[word].append(client)
            return word

        assert {await another(), await another()} == {b"a", b"b"}
        assert {await another(), await another()} == {b"a", b"b"}
        for client in clients[b"a"]:
            client.writer.transport.abort()
        await until(lambda: a.connections == 0)
        assert [await another(), await another()] == [b"a", b"a"]
        for client in clients[b"a"] + clients[b"b"]:
            client.writer.transport.abort()


async def test_an_upstream_that_fails_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """The client does not notice; after the second failure the upstream is down, which is logged once."""
    with unused_port() as port:
        async with answering(b"a") as a, forward(f"127.0.0.1:{port}", a) as service:
            for _ in range(6):
                async with connected(service) as client:
                    await client.expect(b"a")
                await until(lambda: a.connections == 0)
    assert caplog.messages == [f"upstream 127.0.0.1:{port} is down: Connection refused"]


@pytest.mark.both_loops
async def test_without_an_upstream_the_client_is_reset(caplog: pytest.LogCaptureFixture) -> None:
    """It is not left waiting; and the next client is tried for again."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    with unused_port() as port:
        async with forward(f"127.0.0.1:{port}", f"unix:/nowhere-{port}") as service:
            for _ in range(3):
                async with connected(service) as client:
                    assert await client.read_all() == b""
    assert caplog.text.count("is not served: no upstream can be reached: ") == 3


async def test_checks_find_out_what_no_client_has(caplog: pytest.LogCaptureFixture) -> None:
    """An upstream that goes is down before a client comes, and is up again when it is back."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        where = "{}:{}".format(*sock.getsockname())
        async with forward(where, check_interval=Duration("10ms")):
            await until(lambda: f"upstream {where} is down: Connection refused" in caplog.messages)
            sock.listen()
            await until(lambda: f"upstream {where} is up" in caplog.messages)


async def test_an_upstream_that_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    """One that accepts no connection, and one that says nothing in its TLS handshake."""
    caplog.set_level(logging.INFO, "tamed.builtin")
    silent = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()

    async with server(say_nothing) as target:
        options: Settings = {"tls": True, "tls_verify": False, "connect_timeout": SOON}
        async with forward(target, **options) as service, connected(service) as client:
            assert await client.read_all() == b""
        silent.set()
    assert "no upstream can be reached" in caplog.text


async def test_an_idle_connection_is_cut() -> None:
    """When nothing moves for as long as the option says."""
    async with server() as target, forward(target, idle_timeout=SOON) as service:
        async with connected(service) as client:
            assert await client.read_all() == b""
        await until(lambda: target.connections == 0)


async def test_too_many_of_one_address_are_refused() -> None:
    """Those that are there are served on."""
    async with (
        server() as target,
        forward(target, max_connections_per_address=1) as service,
        connected(service) as one,
    ):
        await one.send(b"sun")
        await one.expect(b"sun")
        async with connected(service) as two:
            assert await two.read_all() == b""
        await one.send(b"sun")
        await one.expect(b"sun")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"listen": [], "to": ["127.0.0.1:1"]}, "an endpoint to listen on"),
        ({"listen": [":1"], "to": []}, "one to forward to"),
        ({"listen": ["tls://:1?cert=x"], "to": [":1"], "proxy_from": LOOPBACK}, "precedes TLS"),
    ],
)
def test_options_that_do_not_fit(options: Settings, why: str) -> None:
    """A mistake in the options is found when they are made."""
    endpoints: Settings = {
        key: [Endpoint.parse(text) for text in options.pop(key)] for key in ("listen", "to")
    }
    with pytest.raises(ValueError, match=why):
        Options(**endpoints, **options)


@pytest.mark.parametrize("to", ["fd://3", "systemd://x", ":80", "127.0.0.1:0"])
def test_upstreams_that_nobody_can_connect_to(to: str) -> None:
    """Inherited sockets, every interface and port 0 are refused."""
    with pytest.raises(ConfigurationError, match=f"cannot forward to {to}"):
        portforward(Options(listen=[Endpoint.parse(":0")], to=[Endpoint.parse(to)]))


async def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """They fail the start, before a client comes."""
    for option in ("tls_ca", "tls_cert"):
        settings: Settings = {option: tmp_path / "nowhere"}
        with pytest.raises(ServiceFailed) as caught:
            async with forward("127.0.0.1:1", tls=True, **settings):
                pass
        assert isinstance(caught.value.cause, MissingInput)


def test_health() -> None:
    """Two failures in a row bring an upstream down, for a while; one success brings it up."""
    health = Health(pause=30)
    assert not health.record_failure(100)
    assert not health.record_success()
    assert not health.record_failure(100)
    assert health.down_for(100) == 0
    assert health.record_failure(100)
    assert health.down_for(110) == 20
    assert health.down_for(130) == 0
    assert not health.record_failure(130)
    assert health.down_for(130) == 30
    assert health.record_success()
    assert health.down_for(130) == 0


async def test_those_that_are_down_come_last() -> None:
    """They are tried when the others fail."""
    time = [0.0]
    with unused_port() as one, unused_port() as two:
        upstreams = [
            Upstream(Endpoint.parse(f"127.0.0.1:{port}"), timeout=5, pause=30, clock=lambda: time[0])
            for port in (one, two)
        ]
        first, second = upstreams
        for when in (0.0, 10.0):
            time[0] = when
            await second.check(b"")
        assert (first.down_for, second.down_for) == (0, 30)
        time[0] = 39.0
        await first.check(b"")
        await first.check(b"")
        assert Balancer(upstreams).order() == [second, first]
        time[0] = 100.0
        assert Balancer(upstreams).order() == [first, second]
