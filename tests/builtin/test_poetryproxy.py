import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tamed.builtin.poetryproxy import Options, poetryproxy
from tamed.errors import ConfigurationError
from tamed.net.endpoint import Endpoint
from tamed.net.reply import ReplyServer
from tamed.net.stream import StreamServer
from tamed.plugins.values import Duration, Size
from tamed.service.service import Service
from tamed.testing.process import StartProcess
from tamed.testing.running import Running, running
from tests.builtin.upstream import Upstream, reset
from tests.net.poetry import until
from tests.patience import PATIENCE
from tests.process.clients import SHIPPED, dial, fetch
from tests.process.conftest import LISTENING, READY

pytestmark = pytest.mark.anyio

POEM = b"Our two souls therefore, which are one,\n" * 100
CROWD = 1000


@pytest.fixture
def files_for_a_crowd() -> None:
    """Let this process have a thousand connections, with both of their ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CROWD
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"a crowd needs {wanted} open files, and no more than {hard} are allowed here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.asynccontextmanager
async def proxy(upstream: str | Upstream, **options: Any) -> AsyncIterator[Running[Service]]:
    """Run a proxy, which never refreshes unless it is asked to."""
    address = upstream.address if isinstance(upstream, Upstream) else upstream
    patient = {"refresh": Duration("1h"), "retry": Duration(0), "fetch_timeout": Duration(PATIENCE)}
    settings = patient | options
    async with running(poetryproxy(Options(upstream=Endpoint.parse(address), **settings))) as started:
        yield started


def server_of(poems: Running[Service]) -> StreamServer:
    """Return the server of a proxy."""
    return next(service for service in poems.service.walk() if isinstance(service, StreamServer))


async def waiting(poems: Running[Service], count: int = 1) -> list[asyncio.StreamWriter]:
    """Connect so many clients, and return their writers when the proxy has accepted all of them."""
    writers = [(await poems.connect())[1] for _ in range(count)]
    await until(lambda: server_of(poems).connections == count)
    return writers


async def leave(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until that is done."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_a_poem_is_fetched_once_and_served_to_everybody() -> None:
    """One after the other, as long as it is fresh."""
    async with Upstream(POEM) as upstream, proxy(upstream) as poems:
        assert [await poems.fetch() for _ in range(3)] == [POEM] * 3
        assert upstream.asked == 1


@pytest.mark.usefixtures("files_for_a_crowd")
async def test_a_thousand_clients_at_once_cause_one_fetch() -> None:
    """All of them wait for it, and all of them get the poem."""
    async with Upstream(POEM) as upstream, proxy(upstream) as poems:
        upstream.release.clear()
        crowd = [asyncio.create_task(poems.fetch()) for _ in range(CROWD)]
        await until(lambda: server_of(poems).connections == CROWD)
        upstream.release.set()
        assert await asyncio.gather(*crowd) == [POEM] * CROWD
        assert upstream.asked == 1


async def test_a_client_that_leaves_early_does_not_end_the_fetch_of_the_others() -> None:
    """Whether it closes its connection or is cut off."""
    async with Upstream(POEM) as upstream, proxy(upstream, half_closed=Duration(0)) as poems:
        upstream.release.clear()
        closing, cut = await waiting(poems, 2)
        patient = asyncio.create_task(poems.fetch())
        await upstream.here.wait()
        await leave(closing)
        reset(cut)
        await leave(cut)
        upstream.release.set()
        assert await patient == POEM
        assert upstream.asked == 1


@pytest.mark.parametrize("cut", [False, True], ids=["closed", "reset"])
async def test_the_fetch_is_cancelled_when_no_client_is_left(cut: bool) -> None:
    """The upstream sees that the proxy has gone; the next client begins another fetch."""
    async with Upstream(POEM) as upstream, proxy(upstream, half_closed=Duration(0)) as poems:
        upstream.release.clear()
        (writer,) = await waiting(poems)
        await upstream.here.wait()
        if cut:
            reset(writer)
        await leave(writer)
        await upstream.left.wait()
        upstream.release.set()
        assert await poems.fetch() == POEM
        assert upstream.asked == 2


async def test_a_client_that_has_closed_only_its_side_gets_the_poem() -> None:
    """``nc -N`` closes its side so; the proxy cannot know whether it still reads."""
    async with Upstream(POEM) as upstream, proxy(upstream, half_closed=Duration("1m")) as poems:
        upstream.release.clear()
        reader, writer = await poems.connect()
        writer.write_eof()
        await upstream.here.wait()
        upstream.release.set()
        assert await reader.read() == POEM
        await leave(writer)


@pytest.mark.both_loops
async def test_a_client_may_leave_at_every_byte_of_the_poem() -> None:
    """By a reset, while the rest is on its way to it; the next one is served all the same."""
    long_poem = POEM * 1000
    async with Upstream(long_poem) as upstream, proxy(upstream, max_size=Size("10 MB")) as poems:
        for length in range(100):
            reader, writer = await poems.connect()
            await reader.readexactly(length)
            reset(writer)
        assert await poems.fetch() == long_poem
        await until(lambda: server_of(poems).connections == 0)


async def test_an_address_with_too_many_connections_is_refused_more() -> None:
    """Those that it has are served."""
    async with Upstream(POEM) as upstream, proxy(upstream, max_connections_per_address=1) as poems:
        upstream.release.clear()
        patient = asyncio.create_task(poems.fetch())
        await upstream.here.wait()
        with contextlib.suppress(ConnectionError):
            assert await poems.fetch() == b""
        upstream.release.set()
        assert await patient == POEM


async def test_what_a_client_sends_is_thrown_away() -> None:
    """A poetry server reads no input."""
    async with Upstream(POEM) as upstream, proxy(upstream) as poems:
        upstream.release.clear()
        chatty = asyncio.create_task(poems.fetch(send=b"\0rubbish" * 100_000))
        await upstream.here.wait()
        upstream.release.set()
        assert await chatty == POEM


@pytest.mark.parametrize(
    ("poem", "breaks"),
    [(POEM[:100], True), (b"", False), (POEM * 100, False)],
    ids=["truncated by a reset", "nothing", "too long"],
)
async def test_a_bad_fetch_never_replaces_a_good_poem(poem: bytes, breaks: bool) -> None:
    """Clients get the last good one."""
    async with Upstream(POEM) as upstream, proxy(upstream, refresh=Duration(0), max_size=Size(9999)) as poems:
        assert await poems.fetch() == POEM
        upstream.poem, upstream.breaks = poem, breaks
        assert await poems.fetch() == POEM
        upstream.poem, upstream.breaks = b"The Ecstasy\n", False
        assert await poems.fetch() == b"The Ecstasy\n"
        assert upstream.asked == 3


async def test_a_fetch_that_takes_too_long_is_given_up() -> None:
    """A client that waits for the first poem gets nothing."""
    async with Upstream(POEM) as upstream, proxy(upstream, fetch_timeout=Duration("10ms")) as poems:
        upstream.release.clear()
        assert await poems.fetch() == b""
        await upstream.left.wait()


async def test_an_upstream_may_be_a_unix_socket(tmp_path: Path) -> None:
    """One that is not there is no poem, and no fault of the proxy's."""
    endpoint = f"unix:{tmp_path}/poetry.sock"
    async with proxy(endpoint) as poems:
        assert await poems.fetch() == b""
        async with running(ReplyServer(endpoint, lambda _: POEM)):
            assert await poems.fetch() == POEM


async def test_a_client_that_does_not_read_is_cut() -> None:
    """Its connection is held no longer than the limit."""
    long_poem = POEM * 5000
    async with (
        Upstream(long_poem) as upstream,
        proxy(upstream, max_size=Size("1 GB"), send_timeout=Duration("50ms")) as poems,
    ):
        server = server_of(poems)
        with dial(poems.address()):
            await until(lambda: server.accepted == 1 and not server.connections)


@pytest.mark.parametrize("upstream", [":10000", "fd://3", "systemd://verse", "tls://localhost:1?cert=a.pem"])
def test_an_upstream_must_be_one_that_can_be_fetched_from(upstream: str) -> None:
    """The error is raised when the plugin is created, not when the first client connects."""
    with pytest.raises(ConfigurationError, match=r"upstream .*: expected HOST:PORT or unix:PATH"):
        poetryproxy(Options(upstream=Endpoint.parse(upstream)))


def test_what_is_kept_is_kept_for_longer_than_it_is_fresh() -> None:
    """Otherwise a fresh poem would not be served."""
    with pytest.raises(ValueError, match="keep 1s is less than refresh 1m"):
        Options(upstream=Endpoint.parse("localhost:1"), keep=Duration(1))


def test_an_upstream_that_is_killed_and_comes_back(tamed_process: StartProcess, tmp_path: Path) -> None:
    """Real processes: the poem outlives its server, and follows the one that comes after it."""
    poem = tmp_path / "poem.txt"
    poem.write_bytes(POEM)
    upstream = tamed_process("run", "fastpoetry", "--listen", f"unix:{tmp_path}/up.sock", "--poem", poem)
    upstream.expect(READY)
    proxy = tamed_process(
        *("run", "poetryproxy", "--upstream", f"unix:{tmp_path}/up.sock"),
        *("--port", "0", "--refresh", "0", "--retry", "0"),
    )
    address = proxy.expect(LISTENING)[1]
    proxy.expect(READY)
    assert fetch(address) == POEM
    upstream.signal(signal.SIGKILL)
    upstream.wait()
    assert [fetch(address) for _ in range(3)] == [POEM] * 3
    proxy.expect(r"no poem from unix:.*: Connection refused; keeping the last poem")
    tamed_process("run", "fastpoetry", "--listen", f"unix:{tmp_path}/up.sock").expect(READY)
    assert fetch(address) == SHIPPED
    with dial(address) as client:
        client.shutdown(socket.SHUT_WR)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0


async def test_a_shared_poem_comes_over_a_socket_of_its_own(tmp_path: Path) -> None:
    """Also in a process on its own; the upstream is asked once."""
    socket_file = Endpoint.parse(f"unix:{tmp_path}/poem.sock")
    async with Upstream(POEM) as upstream, proxy(upstream, shared=socket_file) as poems:
        server = poems.service.children[-1]
        assert isinstance(server, StreamServer)
        host, _, port = server.addresses[0].rpartition(":")
        for _ in range(2):
            reader, writer = await asyncio.open_connection(host, int(port))
            assert await reader.read() == POEM
            await leave(writer)
        assert upstream.asked == 1


def test_a_shared_poem_needs_a_unix_socket() -> None:
    """Another kind of endpoint could be reached from elsewhere."""
    with pytest.raises(ValueError, match="shared localhost:1: expected unix:PATH"):
        Options(upstream=Endpoint.parse("localhost:1"), shared=Endpoint.parse("localhost:1"))
