import asyncio
import socket
from pathlib import Path

import pytest

from tamed.errors import ServiceFailed
from tamed.net.endpoint import TcpEndpoint, UnixEndpoint
from tamed.net.reply import ReplyServer
from tamed.net.stream import StreamServer
from tamed.service.application import Application
from tamed.service.service import MultiService, Service
from tamed.testing.running import FreePorts, Running, running

pytestmark = pytest.mark.anyio

POEM = b"The rest is silence.\n"


def reply(peer: str) -> bytes:
    """Recite the poem."""
    return POEM


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a line back."""
    writer.write(await reader.readline())


async def test_a_server_is_reached_on_a_free_port() -> None:
    """Whatever port it is configured with, even one that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(ReplyServer(f"127.0.0.1:{port}", reply)) as poetry:
            assert poetry.addresses == (poetry.address(),)
            assert poetry.address() != f"127.0.0.1:{port}"
            assert await poetry.fetch() == POEM


async def test_servers_of_an_application_are_distinguished_by_name() -> None:
    """By the name that messages have for them; without one it is the first."""
    verse = MultiService("verse", ReplyServer("127.0.0.1:1", reply, name="server"))
    async with running(Application("two", verse, StreamServer("127.0.0.1:1", echo, name="echo"))) as two:
        assert two.address() == two.address("verse/server")
        assert await two.fetch("verse/server") == POEM
        assert await two.fetch("echo", send=b"hush\n") == b"hush\n"
        assert two.addresses == (two.address("verse/server"), two.address("echo"))
        with pytest.raises(LookupError, match="no server 'verse' listens; there is: verse/server, echo"):
            two.address("verse")


@pytest.mark.parametrize("endpoint", ["unix:{}/verse.sock", "unix:@verse-{}"])
async def test_a_unix_socket_is_reached_too(tmp_path: Path, endpoint: str) -> None:
    """One in the file system, and one in the abstract namespace."""
    async with running(ReplyServer(endpoint.format(tmp_path), reply)) as poetry:
        assert await poetry.fetch() == POEM


async def test_what_has_no_server_has_no_address() -> None:
    """A service that does not listen is run all the same."""
    async with running(Service("idle")) as idle:
        assert idle.addresses == ()
        with pytest.raises(LookupError, match="no server '' listens; there is: none"):
            idle.address()


async def test_a_failed_start_is_raised() -> None:
    """As the framework says it."""

    class Broken(Service):
        async def start(self) -> None:
            raise ValueError("no rhyme")

    with pytest.raises(ServiceFailed, match="service broken failed in start: ValueError: no rhyme"):
        async with running(Broken("broken")):
            pytest.fail("it is not ready")


async def test_the_service_is_stopped_at_the_end() -> None:
    """With the drain timeout that was asked for."""
    blocked = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        blocked.set()
        await asyncio.Event().wait()

    async with running(StreamServer("127.0.0.1:0", wait), drain_timeout=0.01) as server:
        reader, writer = await server.connect()
        await blocked.wait()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert server.addresses == ()


async def test_the_service_itself_is_at_hand() -> None:
    """With its own type."""
    server = ReplyServer("127.0.0.1:0", reply)
    async with running(server) as found:
        assert isinstance(found, Running)
        await found.fetch()
        assert found.service.accepted == 1


async def test_free_ports_leave_other_endpoints_alone(tmp_path: Path) -> None:
    """Only a port is replaced; the interface is as it was."""
    source = FreePorts()
    unix = [UnixEndpoint(f"{tmp_path}/{name}.sock") for name in ("a", "b")]
    interface = TcpEndpoint("::1", 9)
    listeners = [
        await source.listen(unix[0]),
        source.listen_now(unix[1]),
        await source.listen(interface),
        source.listen_now(interface),
    ]
    addresses = [listener.addresses[0] for listener in listeners]
    for listener in listeners:
        listener.close()
    assert addresses[:2] == [str(endpoint) for endpoint in unix]
    assert all(address.startswith("[::1]:") and address != "[::1]:9" for address in addresses[2:])
