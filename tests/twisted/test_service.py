"""Twisted services inside Tamed applications: in this process, on both event loops."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("twisted")

from twisted.application import internet, service
from twisted.internet import endpoints, protocol, threads, utils
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater

from tamed.errors import ApplicationFailed, ServiceFailed, Unavailable
from tamed.net.listen import Gate, ServerEnvironment, use_environment
from tamed.service.application import Application
from tamed.service.service import Service
from tamed.twisted.reactor import install
from tamed.twisted.services import TamedServiceForTwisted, TwistedService

install()

from twisted.internet import reactor as imported

from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio

reactor: Any = imported
HERE = "127.0.0.1"


class Poetry(protocol.Protocol):
    transport: Any

    def connectionMade(self) -> None:
        self.transport.write(b"poem")
        self.transport.loseConnection()


class Patient(protocol.Protocol):
    """Says hello, and goodbye when it is told to."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.write(b"hello ")

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"goodbye")
        self.transport.loseConnection()


def factory(kind: type[protocol.Protocol] = Poetry) -> Any:
    """Return a factory of protocols."""
    return protocol.Factory.forProtocol(kind)


def application(*services: service.Service) -> Any:
    """Return a Twisted application with these services."""
    made = service.Application("poetry")
    for each in services:
        each.setServiceParent(made)
    return made


class Told(service.Service):
    """A service that tells what is done with it, and answers what it is told to."""

    def __init__(self, name: str, told: list[str], start: Any = None, stop: Any = None) -> None:
        self.setName(name)
        self._told = told
        self._start = start
        self._stop = stop

    def privilegedStartService(self) -> None:
        self._told.append(f"{self.name} privileged")

    def startService(self) -> Any:
        super().startService()
        self._told.append(f"{self.name} start")
        return self._start() if self._start is not None else None

    def stopService(self) -> Any:
        super().stopService()
        self._told.append(f"{self.name} stop")
        return self._stop() if self._stop is not None else None


async def fetch(port: int) -> bytes:
    """Connect and read to the end."""
    reader, writer = await asyncio.open_connection(HERE, port)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def port_of(server: Any) -> int:
    """Return the port of a Twisted server service."""
    number: int = server._port.getHost().port
    return number


async def test_a_twisted_application_serves() -> None:
    """Its server listens on a socket of Tamed's source, and it can be started again."""
    server = internet.TCPServer(0, factory(), interface=HERE)
    twisted = TwistedService(application(server))
    app = Application("app", twisted)
    for _ in range(2):
        async with app:
            assert reactor.running
            assert twisted.name == "poetry"
            assert twisted.summary == f"127.0.0.1:{port_of(server)}"
            assert await fetch(port_of(server)) == b"poem"
            assert twisted.accepted >= 1
        assert not reactor.running
        assert twisted.summary == "TCPServer"


async def test_hooks_come_in_the_order_of_twistd() -> None:
    """The privileged ones first, then the start, the reactor's startup, and at the end its shutdown."""
    told: list[str] = []
    twisted = TwistedService(application(Told("a", told), Told("b", told)))
    reactor.callWhenRunning(told.append, "running")
    reactor.addSystemEventTrigger("before", "shutdown", told.append, "before shutdown")
    reactor.addSystemEventTrigger("after", "shutdown", told.append, "after shutdown")
    async with Application("app", twisted):
        told.append("ready")
    assert told == [
        *("a privileged", "b privileged", "a start", "b start", "running", "ready"),
        *("before shutdown", "b stop", "a stop", "after shutdown"),
    ]


async def _native() -> None:
    await asyncio.sleep(0)


async def _mixed() -> None:
    await deferLater(reactor, 0, lambda: None)
    await asyncio.sleep(0)
    assert await succeed(3) == 3


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(lambda: deferLater(reactor, 0.01, lambda: None), id="deferred"),
        pytest.param(lambda: threads.deferToThread(lambda: None), id="thread"),
        pytest.param(_native, id="asyncio's coroutine"),
        pytest.param(_mixed, id="coroutine of both"),
        pytest.param(lambda: asyncio.ensure_future(_native()), id="future"),
    ],
)
async def test_what_start_and_stop_return_is_waited_for(start: Callable[[], Any]) -> None:
    """In a child of a MultiService too, where Twisted drops it."""
    done: list[str] = []

    async def watched(which: str) -> None:
        result = start()
        await (result if not isinstance(result, Deferred) else result.asFuture(asyncio.get_running_loop()))
        done.append(which)

    child = Told("a", [], start=lambda: watched("start"), stop=lambda: watched("stop"))
    inner = service.MultiService()
    child.setServiceParent(inner)
    async with TwistedService(application(inner)):
        assert done == ["start"]
    assert done == ["start", "stop"]


async def _raises() -> None:
    raise KeyError("rhyme")


def _raises_now() -> None:
    raise KeyError("rhyme")


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(_raises_now, id="at once"),
        pytest.param(lambda: fail(KeyError("rhyme")), id="deferred"),
        pytest.param(lambda: deferLater(reactor, 0.01, _raises_now), id="later"),
        pytest.param(_raises, id="coroutine"),
    ],
)
async def test_a_failing_start_is_undone(start: Callable[[], Any]) -> None:
    """The services that had started are stopped in reverse, and the port is closed."""
    told: list[str] = []
    server = internet.TCPServer(0, factory(), interface=HERE)
    bad = Told("bad", told, start=start)
    root = application(server, Told("a", told), Told("b", told), bad, Told("never", told))
    with pytest.raises(ServiceFailed, match="service poetry failed in start: KeyError: 'rhyme'"):
        async with TwistedService(root):
            pass
    stopped = [each for each in told if each.endswith("stop")]
    assert stopped[-2:] == ["b stop", "a stop"]
    assert reactor.connections.ports == ()
    assert not reactor.running


async def test_a_failing_stop_is_reported() -> None:
    """The failure of one stop does not prevent the others."""
    told: list[str] = []
    root = application(Told("a", told), Told("b", told, stop=lambda: fail(KeyError("rhyme"))))
    with pytest.raises(ServiceFailed, match="failed in stop: KeyError: 'rhyme'"):
        async with TwistedService(root):
            pass
    assert told[-2:] == ["b stop", "a stop"]


@pytest.mark.parametrize("listens", ["TCPServer", "endpoint", "strports"])
async def test_an_address_in_use_fails_the_preparation(listens: str) -> None:
    """With the words of the socket source, of endpoint services too, which would only log it."""
    with closing(socket.create_server((HERE, 0))) as other:
        port = other.getsockname()[1]
        if listens == "TCPServer":
            server: Any = internet.TCPServer(port, factory(), interface=HERE)
        elif listens == "endpoint":
            endpoint = endpoints.TCP4ServerEndpoint(reactor, port, interface=HERE)
            server = internet.StreamServerEndpointService(endpoint, factory())
        else:
            from twisted.application import strports

            server = strports.service(f"tcp:{port}:interface={HERE}", factory())
        with pytest.raises(ServiceFailed, match=r"failed in prepare: .*in use") as caught:
            async with TwistedService(application(server)):
                pass
        assert isinstance(caught.value.cause, Unavailable)


async def test_an_endpoint_that_fails_later_fails_the_start() -> None:
    """As one that waits for something before it listens."""

    class Late:
        def listen(self, _: Any) -> Any:
            return deferLater(reactor, 0.01, _raises_now)

    server = internet.StreamServerEndpointService(Late(), factory())
    with pytest.raises(ServiceFailed, match="failed in start: KeyError: 'rhyme'"):
        async with TwistedService(application(server)):
            pass
    assert isinstance(server.endpoint, Late)


async def test_connections_are_drained() -> None:
    """The port is closed, and who has connected is served to the end."""
    server = internet.TCPServer(0, factory(Patient), interface=HERE)
    with use_environment(ServerEnvironment(drain_timeout=20)):
        twisted = TwistedService(application(server))
        entered, leave = asyncio.Event(), asyncio.Event()

        async def live() -> None:
            async with twisted:
                entered.set()
                await leave.wait()

        living = asyncio.create_task(live())
        await entered.wait()
        reader, writer = await asyncio.open_connection(HERE, port_of(server))
        assert await reader.readexactly(6) == b"hello "
        leave.set()
        while reactor.connections.ports:  # noqa: ASYNC110 - nothing tells that a port is closed
            await asyncio.sleep(0)
        assert not living.done()
        writer.write(b"?")
        assert await reader.read() == b"goodbye"
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(living, PATIENCE)


class Draining(Patient):
    """Says goodbye when it is notified that the server stops; a second one fails at that."""

    def connection_draining(self) -> None:
        self.transport.write(b"goodbye")
        self.transport.loseConnection()
        raise ValueError


async def test_connections_are_notified_of_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    """Their protocols may have a method for that, as those of our servers; its failure is logged."""
    server = internet.TCPServer(0, factory(Draining), interface=HERE)
    with use_environment(ServerEnvironment(drain_timeout=20)):
        async with TwistedService(application(server)):
            reader, writer = await asyncio.open_connection(HERE, port_of(server))
            assert await reader.readexactly(6) == b"hello "
        assert await reader.read() == b"goodbye"
    assert "connection_draining of 127.0.0.1:" in caplog.text
    writer.close()


async def test_connections_are_cut_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    """With a warning that names them."""
    server = internet.TCPServer(0, factory(Patient), interface=HERE)
    with use_environment(ServerEnvironment(drain_timeout=0.01)):
        async with TwistedService(application(server)):
            reader, writer = await asyncio.open_connection(HERE, port_of(server))
            assert await reader.readexactly(6) == b"hello "
    assert "aborts connections that did not end within 0.01 s: 1 connection (127.0.0.1:" in caplog.text
    with pytest.raises(ConnectionError):
        await reader.read()
    writer.close()


async def test_those_who_wait_in_the_queue_are_served() -> None:
    """Connections that the kernel accepted before the port was closed are served."""
    server = internet.TCPServer(0, factory(), interface=HERE)
    async with TwistedService(application(server)):
        clients = [socket.create_connection((HERE, port_of(server))) for _ in range(20)]
    for client in clients:
        with closing(client):
            client.setblocking(False)
            assert client.recv(100) == b"poem"


async def test_a_shut_gate_lets_nobody_in() -> None:
    """Clients wait in the kernel's queue until the gate opens."""
    gate = Gate(is_open=False)
    server = internet.TCPServer(0, factory(), interface=HERE)
    with use_environment(ServerEnvironment(gate=gate)):
        async with TwistedService(application(server)):
            fetching = asyncio.create_task(fetch(port_of(server)))
            other = asyncio.create_task(asyncio.to_thread(socket.create_connection, (HERE, port_of(server))))
            (await other).close()  # the kernel has accepted both
            assert not fetching.done()
            gate.open()
            assert await asyncio.wait_for(fetching, PATIENCE) == b"poem"
            gate.shut()


async def test_reactor_stop_ends_the_application() -> None:
    """A second ``reactor.stop`` raises an error, as in Twisted."""
    app = Application("app", TwistedService(application()))
    async with app:
        reactor.callLater(0, reactor.stop)
        assert await asyncio.wait_for(app.wait(), PATIENCE) == 0


async def test_reactor_stop_while_it_starts_ends_the_start() -> None:
    """A service that gives up need not say so with its Deferred too."""
    never: Deferred[None] = Deferred()
    app = Application("app", TwistedService(application(Told("a", [], start=lambda: never))))
    reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)
    async with app:
        assert await asyncio.wait_for(app.wait(), PATIENCE) == 0


async def test_a_stop_that_hangs_is_abandoned() -> None:
    """After its deadline; the reactor ends all the same, and can start again."""
    twisted = TwistedService(application(Told("a", [])))
    never: Deferred[None] = Deferred()

    async def live() -> None:
        async with twisted:
            twisted.stop_timeout = 0.01
            reactor.addSystemEventTrigger("before", "shutdown", lambda: never)

    with pytest.raises(ServiceFailed, match=r"not done within 0\.01 s"):
        await live()
    assert not reactor.running
    async with twisted:
        assert reactor.running


async def test_reactor_stop_outside_of_an_application_fails_the_service() -> None:
    """There is nothing that could end."""

    async def live() -> None:
        async with TwistedService(application()):
            reactor.stop()
            await asyncio.sleep(10)

    with pytest.raises(ServiceFailed, match=r"reactor\.stop"):
        await live()


async def test_reactor_run_is_refused() -> None:
    """Tamed runs it."""
    with pytest.raises(ApplicationFailed, match=r"reactor\.run\(\)"):
        reactor.run()


async def test_child_processes_are_noticed() -> None:
    """Also beside asyncio's own."""
    async with TwistedService(application()):
        output = utils.getProcessOutput("/bin/echo", [b"verse"])
        assert await output.asFuture(asyncio.get_running_loop()) == b"verse\n"
        own = await asyncio.create_subprocess_exec("/bin/true")
        assert await own.wait() == 0
        again = utils.getProcessValue("/bin/false")
        assert await again.asFuture(asyncio.get_running_loop()) == 1


async def test_timers_and_calls_from_before_the_loop_are_kept() -> None:
    """A module may make them at its top level, as Twisted allows."""
    told: list[str] = []
    reactor.callLater(0, told.append, "timer")
    reactor.callFromThread(told.append, "thread")
    port = reactor.listenTCP(0, factory(), interface=HERE)
    async with TwistedService(application()):
        assert await fetch(port.getHost().port) == b"poem"
        assert sorted(told) == ["thread", "timer"]
    assert reactor.connections.ports == ()


async def test_every_interface_is_for_both_families() -> None:
    """As under Twisted, where `::` takes IPv4 as well."""
    async with TwistedService(application(server := internet.TCPServer(0, factory(), interface="::"))):
        assert await fetch(port_of(server)) == b"poem"
        reader, writer = await asyncio.open_connection("::1", port_of(server))
        assert await reader.read() == b"poem"
        writer.close()
        await writer.wait_closed()


async def test_unix_sockets(tmp_path: Path) -> None:
    """With their mode; the file is gone afterwards."""
    path = tmp_path / "poetry.sock"
    async with TwistedService(application(internet.UNIXServer(str(path), factory(), mode=0o600))):
        assert path.stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b"poem"
        writer.close()
        await writer.wait_closed()
    assert not path.exists()


async def test_datagrams() -> None:
    """A UDP server gets its socket from the source too."""

    class Echo(protocol.DatagramProtocol):
        transport: Any

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            self.transport.write(datagram, addr)

    server = internet.UDPServer(0, Echo(), interface=HERE)
    async with TwistedService(application(server)):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.setblocking(False)
            client.connect((HERE, port_of(server)))
            client.send(b"verse")
            assert await asyncio.get_running_loop().sock_recv(client, 10) == b"verse"


async def test_programs_know_why_they_cannot_listen() -> None:
    """They look at the number of the system's error, and try another port."""
    async with TwistedService(application()):
        with closing(socket.create_server((HERE, 0))) as other:
            with pytest.raises(CannotListenError) as caught:
                reactor.listenTCP(other.getsockname()[1], factory(), interface=HERE)
            assert os.strerror(caught.value.socketError.errno) == "Address already in use"


async def test_a_port_that_is_opened_later_is_this_process_s_own() -> None:
    """The source is not asked for a port that the kernel chooses once the reactor is running."""
    async with TwistedService(application()):
        with use_environment(ServerEnvironment(object())):  # type: ignore[arg-type]
            port = reactor.listenTCP(0, factory(), interface=HERE)
            assert await fetch(port.getHost().port) == b"poem"
            await port.stopListening().asFuture(asyncio.get_running_loop())


async def test_a_port_of_this_process_alone_is_open_while_the_gate_is_shut() -> None:
    """Nobody else could serve its clients: a session that drains has such ports, and so has a resolver."""
    gate = Gate()
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    class Listening(protocol.DatagramProtocol):
        def datagramReceived(self, data: bytes, address: tuple[str, int]) -> None:
            heard.put_nowait(data)

    with use_environment(ServerEnvironment(gate=gate)):
        async with TwistedService(application()):
            port = reactor.listenTCP(0, factory(), interface=HERE)
            asking = reactor.listenUDP(0, Listening(), interface=HERE)
            gate.shut()
            assert await fetch(port.getHost().port) == b"poem"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"an answer", (HERE, asking.getHost().port))
            assert await heard.get() == b"an answer"


async def test_what_is_adopted_is_counted() -> None:
    """Ports of both families, datagrams, and connections that another process has accepted."""
    here, there = socket.socketpair()
    with (
        closing(there),
        socket.create_server((HERE, 0)) as listening,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        use_environment(ServerEnvironment(drain_timeout=0.01)),
    ):
        datagrams.bind((HERE, 0))
        service = TwistedService(application())
        async with service:
            reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, factory(Patient))
            reactor.adoptDatagramPort(datagrams.fileno(), socket.AF_INET, protocol.DatagramProtocol())
            assert service.summary == ", ".join(
                "{}:{}".format(*sock.getsockname()) for sock in (listening, datagrams)
            )
            with socket.create_connection(listening.getsockname()) as client:
                client.setblocking(False)
                assert await asyncio.get_running_loop().sock_recv(client, 6) == b"hello "
                assert service.connections == 1
            with closing(here):
                here.setblocking(False)
                reactor.adoptStreamConnection(here.fileno(), socket.AF_UNIX, factory(Patient))
            there.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(there, 6) == b"hello "
            assert service.accepted >= 2
        assert await asyncio.get_running_loop().sock_recv(there, 6) == b""


async def test_a_factory_that_fails_as_it_ends_leaves_no_port() -> None:
    """An error in its ``doStop`` leaves neither the socket open nor the port counted."""

    class Broken(protocol.Factory):
        protocol = Poetry

        def stopFactory(self) -> None:
            raise ValueError("no farewell")

    async with TwistedService(application()):
        port = reactor.listenTCP(0, Broken(), interface=HERE)
        number = port.getHost().port
        with suppress(ValueError):
            await port.stopListening().asFuture(asyncio.get_running_loop())
        assert reactor.connections.ports == ()
        with socket.socket() as late:
            assert late.connect_ex((HERE, number)) != 0


async def test_a_name_with_a_slash_is_changed() -> None:
    """Twisted allows it; here it separates the names in a path."""
    wrapped = service.MultiService()
    wrapped.setName("verse/reading")
    assert Application("poems", TwistedService(wrapped)).children[0].name == "verse-reading"


async def test_what_is_no_twisted_service_is_refused() -> None:
    """When it is made."""
    with pytest.raises(ApplicationFailed, match="is not a Twisted service"):
        TwistedService(3)


# Tamed's services under Twisted's.


class Native(Service):
    def __init__(self, told: list[str], error: Exception | None = None) -> None:
        super().__init__("native")
        self._told = told
        self._error = error
        self.broken = asyncio.Event()

    async def prepare(self) -> None:
        self._told.append("prepare")

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        self._told.append("start")

    async def run(self) -> None:
        await self.broken.wait()
        raise KeyError("metre")

    async def stop(self) -> None:
        self._told.append("stop")

    async def release(self) -> None:
        self._told.append("release")


async def test_a_tamed_service_under_a_twisted_parent() -> None:
    """It is prepared, started, stopped and released with it."""
    told: list[str] = []
    async with TwistedService(application(TamedServiceForTwisted(Native(told)))):
        assert told == ["prepare", "start"]
    assert told == ["prepare", "start", "stop", "release"]


async def test_a_tamed_service_that_fails_to_start_fails_its_parent() -> None:
    """Under Tamed, which waits for it."""
    told: list[str] = []
    with pytest.raises(ServiceFailed, match="native failed in start: KeyError: 'rhyme'"):
        async with TwistedService(application(TamedServiceForTwisted(Native(told, KeyError("rhyme"))))):
            pass
    assert told == ["prepare", "release"]


async def test_a_tamed_service_that_fails_later_ends_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With its failure."""
    native = Native([])
    app = Application("app", TwistedService(application(TamedServiceForTwisted(native))))

    async def live() -> None:
        async with app:
            native.broken.set()
            await asyncio.wait_for(app.wait(), PATIENCE)

    with caplog.at_level(logging.CRITICAL), pytest.raises(ServiceFailed, match="metre"):
        await live()
