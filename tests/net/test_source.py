import asyncio
import errno
import os
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from tamed.errors import MissingInput, SystemRefused, Unavailable
from tamed.net.bind import Address
from tamed.net.endpoint import Endpoint, FdEndpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint
from tamed.net.listen import (
    Listener,
    LocalSource,
    ServerEnvironment,
    current_environment,
    set_environment,
    use_environment,
)
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio

LOOPBACK = Address(socket.AF_INET, ("127.0.0.1", 0))
SOURCE = LocalSource({}, 1)


def lookup_threads() -> list[threading.Thread]:
    """Return the threads that look up names now."""
    return [thread for thread in threading.enumerate() if thread.name == "tamed-lookup"]


async def test_a_listener_has_bound_sockets_that_do_not_listen() -> None:
    """Until the server starts nobody can connect; then they can, at the addresses that are told."""
    listener = await SOURCE.listen(TcpEndpoint("127.0.0.1", 0))
    with closing(listener), socket.socket() as client:
        host, port = listener.sockets[0].getsockname()
        assert listener.addresses == (f"127.0.0.1:{port}",)
        assert not listener.shared
        assert listener.tls is None
        assert client.connect_ex((host, port)) == errno.ECONNREFUSED
        listener.listen(1)
        client.connect((host, port))
        listener.listen(1)  # again, as after a restart
    assert listener.sockets[0].fileno() == -1
    listener.close()


def test_a_listener_can_be_had_without_an_event_loop() -> None:
    """By a caller that cannot wait: bound in the same way, and refused in the same way."""
    with closing(SOURCE.listen_now(TcpEndpoint("127.0.0.1", 0))) as listener:
        listener.listen(1)
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match="in use"):
            SOURCE.listen_now(TcpEndpoint("127.0.0.1", port))


def test_what_was_inherited_can_be_had_without_an_event_loop() -> None:
    """As a duplicate, which is shared with the parent."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = SOURCE.listen_now(FdEndpoint(sock.fileno()))
        assert listener.shared
        assert listener.sockets[0].getsockname() == sock.getsockname()
        listener.close()


async def test_datagram_listeners_have_nothing_to_start() -> None:
    """A datagram socket receives from the moment that it is bound; ``listen`` leaves it alone."""
    with closing(await SOURCE.listen(TcpEndpoint("127.0.0.1", 0), socket.SOCK_DGRAM)) as listener:
        listener.listen(1)
        assert listener.sockets[0].type == socket.SOCK_DGRAM


async def test_who_listens_first_has_the_port() -> None:
    """Two may bind a port before either listens; the second that listens is told who is in its way."""
    with closing(await SOURCE.listen(TcpEndpoint("127.0.0.1", 0))) as first:
        endpoint = Endpoint.parse(first.addresses[0])
        with closing(await SOURCE.listen(endpoint)) as second:
            first.listen(1)
            why = f"cannot listen on {endpoint}: {endpoint} is in use by this daemon, on {endpoint}"
            with pytest.raises(Unavailable, match=why):
                second.listen(1)


async def test_a_refusal_to_listen_is_the_system_s() -> None:
    """Whatever else ``listen`` may say is an error of ours with its words."""

    class Refusing(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    sock = Refusing()
    with closing(Listener(FdEndpoint(3), (sock,))) as listener, pytest.raises(SystemRefused) as caught:
        listener.listen(1)
    assert str(caught.value) == "cannot listen on fd://3: No buffer space available"


async def test_a_listener_of_ready_sockets() -> None:
    """A listener can be made of sockets that came from elsewhere, as a supervisor's would."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = Listener(TcpEndpoint("localhost", 0), (sock,), shared=True)
        assert repr(listener) == f"<Listener 127.0.0.1:{sock.getsockname()[1]}>"
        listener.close()
        assert sock.fileno() == -1


async def test_a_unix_socket_s_file_is_removed_when_it_is_closed(tmp_path: Path) -> None:
    """Closing removes the file, once: what comes after it is left alone."""
    path = tmp_path / "x.sock"
    listener = await SOURCE.listen(UnixEndpoint(str(path), 0o600))
    assert listener.addresses == (f"unix:{path}",)
    listener.close()
    assert not path.exists()
    path.touch()
    listener.close()
    assert path.exists()


async def test_the_file_is_removed_also_if_the_sockets_were_closed_by_others(tmp_path: Path) -> None:
    """An event loop that closes the sockets it was given does not make the file stay."""
    path = tmp_path / "x.sock"
    listener = await SOURCE.listen(UnixEndpoint(str(path)))
    for sock in listener.sockets:
        sock.close()
    listener.close()
    assert not path.exists()


async def test_a_relative_path_is_reported_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of a unix socket is its endpoint's, without the mode."""
    monkeypatch.chdir(tmp_path)
    with closing(await SOURCE.listen(UnixEndpoint("x.sock", 0o600))) as listener:
        assert listener.addresses == ("unix:x.sock",)


async def test_an_inherited_socket_is_shared_and_its_file_stays(tmp_path: Path) -> None:
    """An inherited unix socket is the parent's: closing ours leaves its file and its socket."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as parents:
        parents.bind(str(path))
        parents.listen()
        for _ in range(2):
            with closing(await SOURCE.listen(FdEndpoint(parents.fileno()))) as listener:
                assert listener.shared
                assert listener.addresses == (f"unix:{path}",)
                listener.listen(1)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


async def test_the_loop_runs_while_a_name_is_looked_up() -> None:
    """A slow name service holds up this listener and nothing else; the thread is gone afterwards."""
    answered = threading.Event()

    def lookup(endpoint: Endpoint, kind: socket.SocketKind) -> tuple[Address, ...]:
        assert answered.wait(PATIENCE)
        return (LOOPBACK,)

    asyncio.get_running_loop().call_soon(answered.set)
    source = LocalSource({}, 1, lookup=lookup)
    with closing(await source.listen(TcpEndpoint("slow.example", 0))) as listener:
        assert listener.addresses[0].startswith("127.0.0.1:")
    assert lookup_threads() == []


async def test_addresses_are_not_looked_up() -> None:
    """A numeric host is bound without asking anybody."""

    def lookup(endpoint: Endpoint, kind: socket.SocketKind) -> tuple[Address, ...]:
        raise AssertionError(endpoint)

    with closing(await LocalSource({}, 1, lookup=lookup).listen(TcpEndpoint("127.0.0.1", 0))):
        pass


async def test_a_lookup_that_fails() -> None:
    """What the lookup raises is raised here, and its thread is gone."""

    def lookup(endpoint: Endpoint, kind: socket.SocketKind) -> tuple[Address, ...]:
        raise Unavailable("no such host")

    with pytest.raises(Unavailable, match="no such host"):
        await LocalSource({}, 1, lookup=lookup).listen(TcpEndpoint("nosuch.example", 80))
    assert lookup_threads() == []


async def test_a_lookup_can_be_cancelled() -> None:
    """Who is told to stop while a name service does not answer stops at once."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    answer = threading.Event()

    def lookup(endpoint: Endpoint, kind: socket.SocketKind) -> tuple[Address, ...]:
        loop.call_soon_threadsafe(asked.set)
        assert answer.wait(PATIENCE)
        return ()

    task = asyncio.create_task(LocalSource({}, 1, lookup=lookup).listen(TcpEndpoint("slow.example", 0)))
    await asked.wait()
    (thread,) = lookup_threads()
    assert thread.daemon
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answer.set()
    thread.join()


async def test_localhost_is_looked_up_and_bound() -> None:
    """The system's resolver is the default."""
    with closing(await LocalSource().listen(TcpEndpoint("localhost", 0))) as listener:
        assert {address.rpartition(":")[0] for address in listener.addresses} <= {"127.0.0.1", "[::1]"}


async def test_a_tls_endpoint_brings_its_context(tmp_path: Path) -> None:
    """A listener of a TLS endpoint has the context for the connections that its server accepts."""
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    with closing(await SOURCE.listen(TlsEndpoint("127.0.0.1", 0, tmp_path / "both.pem"))) as listener:
        assert listener.tls is not None
        assert listener.addresses[0].startswith("127.0.0.1:")


async def test_a_bad_certificate_binds_nothing(tmp_path: Path) -> None:
    """The files are read first, so there is no socket to take back."""
    with pytest.raises(MissingInput, match="TLS certificate"):
        await SOURCE.listen(TlsEndpoint("127.0.0.1", 0, tmp_path / "none.pem"))


async def test_an_environment_reaches_the_tasks_within() -> None:
    """What is set for a task is what it and the tasks it starts find; outside it is as before."""

    async def found() -> ServerEnvironment:
        return current_environment()

    environment = ServerEnvironment(SOURCE, drain_timeout=5)
    with use_environment(environment) as same:
        assert same is environment
        assert await asyncio.create_task(found()) is environment
        inner = ServerEnvironment(SOURCE)
        with use_environment(inner):
            assert current_environment() is inner
        assert current_environment() is environment
    assert current_environment() is not environment


async def test_an_environment_can_be_set_for_good() -> None:
    """A runner sets them once, for its task and every later one."""
    environment = ServerEnvironment(SOURCE)

    async def run() -> None:
        set_environment(environment)
        assert current_environment() is environment

    await asyncio.create_task(run())
    assert current_environment() is not environment


async def test_a_program_of_its_own_has_a_local_source() -> None:
    """Without a runner, sockets are bound here and connections have half a minute to end."""
    environment = current_environment()
    assert environment.drain_timeout == 30.0
    assert isinstance(environment.source, LocalSource)
    assert environment.source.pid == os.getpid()
    assert environment.source.environ is os.environ
