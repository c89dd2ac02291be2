"""A Twisted program under a supervisor: several workers on one port, and none lost."""

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

pytest.importorskip("twisted")

from tests.patience import PATIENCE, ROUNDS
from tests.supervised import talk
from tests.supervised.daemon import POEM, Tamed, is_there, needs_root, read_poem, wait_for
from tests.twisted.example import write_application

# Says which process it is, and serves the poem to who says a word.
PROTOCOL = """
class Talk(protocol.Protocol):
    def connectionMade(self):
        self.transport.write(b"%d\\n" % os.getpid())
    def dataReceived(self, data):
        self.transport.write(b"poem")
        self.transport.loseConnection()
"""
TALK = f"""
import os
from twisted.application import internet, service
from twisted.internet import protocol, reactor

{PROTOCOL}

application = service.Application("talk")
internet.TCPServer(0, protocol.Factory.forProtocol(Talk), interface="127.0.0.1").setServiceParent(application)
"""


class Load:
    """Clients that come one after the other, in several threads, until it is left."""

    def __init__(self, port: int, clients: int = 8) -> None:
        self.served = 0
        self.failed: list[str] = []
        self._port = port
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._come) for _ in range(clients)]

    def _come(self) -> None:
        while not self._is_over.wait(talk.PAUSE):
            try:
                poem = read_poem(self._port)
            except OSError as error:
                self.failed.append(repr(error))
                continue
            if poem == POEM:
                self.served += 1
            else:
                self.failed.append(f"{len(poem)} bytes")

    @contextmanager
    def running(self) -> Iterator["Load"]:
        """Let them come."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()

    def wait(self, more: int) -> None:
        """Wait until so many more were served."""
        count = self.served + more
        wait_for("clients", lambda: self.served >= count)


def worker_of(port: int) -> int:
    """Connect, and return which worker serves that connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        file = sock.makefile("rb")
        pid = int(file.readline())
        sock.sendall(b"?")
        assert file.read() == b"poem"
        return pid


def test_connections_are_counted_and_served_to_their_end(tamed: Tamed) -> None:
    """The status shows those that are open and all so far; two programs in one daemon count theirs once.

    An error in a protocol's ``connectionLost`` is logged, and holds up no stop: the connection is closed and
    counted as such. A stop serves those that a worker has accepted.
    """
    lost = '    def connectionLost(self, reason):\n        raise ValueError("no farewell")\n'
    tamed.write("talk.tac", TALK.replace("\napplication =", f"{lost}\napplication ="))
    tamed.write(
        "both.toml", "[services.a]\napplication = 'talk.tac'\n[services.b]\napplication = 'talk.tac'\n"
    )
    daemon = tamed.start("both.toml")

    def counted() -> tuple[int, int]:
        (worker,) = daemon.status()["workers"]
        return worker["connections"], worker["accepted"]

    with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) as sock:
        assert sock.makefile("rb").readline()
        assert counted() == (1, 1)
    daemon.expect_log("ValueError: no farewell")
    assert counted() == (0, 1)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) as sock:
        file = sock.makefile("rb")
        worker = int(file.readline())
        daemon.signal(signal.SIGTERM)
        daemon.expect_log(r"\(TCP Port \d+ Closed\)")
        assert is_there(worker)
        sock.sendall(b"?")
        assert file.read() == b"poem"
    daemon.wait_gone()
    assert "not done in time" not in daemon.log
    assert "aborts connections that did not end" not in daemon.log
    assert tamed.left() == {}


def test_a_worker_that_has_served_enough_is_replaced(tamed: Tamed) -> None:
    """As one with a server of Tamed's is."""
    tamed.write("talk.tac", TALK)
    daemon = tamed.start("--max-connections-per-worker", "10", "talk.tac")
    before = daemon.workers()
    for _ in range(12):
        worker_of(daemon.port)
    daemon.wait_workers(1, without=before)
    daemon.expect_log(r"worker \d+ has served \d+ connections: replacing it")
    daemon.stop()


SHARED = f"""{TALK}
talk = protocol.Factory.forProtocol(Talk)
reactor.listenTCP(0, talk, interface="127.0.0.1")  # before there is an event loop, or a supervisor to ask
internet.UNIXServer(os.path.join(os.path.dirname(__file__), "talk.sock"), talk).setServiceParent(application)
"""


def test_workers_share_what_the_program_listens_on(tamed: Tamed) -> None:
    """A port that the kernel chose, one that a module opens at its top, and a unix socket."""
    tamed.write("talk.tac", SHARED)
    daemon = tamed.start("--workers", "2", "talk.tac")
    workers = set(daemon.workers())
    ports = [int(number) for address in daemon.addresses if (number := address.rpartition(":")[2]).isdigit()]
    assert (len(workers), len(ports), len(daemon.addresses)) == (2, 2, 3)
    for port in ports:
        seen: set[int] = set()

        def all_seen(port: int = port, seen: set[int] = seen) -> bool:
            seen.add(worker_of(port))
            return seen == workers

        wait_for("a connection to each worker", all_seen)
    path = tamed.folder / "talk.sock"
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(os.fspath(path))
        assert int(sock.makefile("rb").readline()) in workers
    daemon.stop()
    assert not path.exists()


def test_reloads_deaths_and_a_stop_under_load_lose_no_connection(tamed: Tamed) -> None:
    """Two workers are replaced by two others, again and again, while clients come.

    A worker that dies takes nobody else with it: a new one replaces it on the same socket. At the stop
    clients are refused when the daemon is gone, and served before.
    """
    daemon = tamed.start("--workers", "2", write_application(tamed.folder))
    with Load(daemon.port, clients=3).running() as load:
        load.wait(50)
        for _ in range(ROUNDS):
            before = daemon.workers()
            done = tamed("reload", daemon.name)
            assert done.status == 0, done
            daemon.wait_workers(2, without=before)
            load.wait(50)
    assert load.failed == []
    victim = daemon.workers()[0]
    with Load(daemon.port).running() as load:
        load.wait(50)
        os.kill(victim, signal.SIGKILL)
        daemon.wait_workers(2, without=[victim])
        load.wait(100)
    assert len(load.failed) <= 8
    with Load(daemon.port, clients=4).running() as load:
        load.wait(100)
        daemon.signal(signal.SIGTERM)
        daemon.wait_gone()
    assert {told for told in load.failed if "ConnectionRefused" not in told} == set()
    assert tamed.left() == {}


@needs_root
def test_privileges_are_dropped_between_the_two_starts(public_tamed: Tamed) -> None:
    """`privilegedStartService` has them if the operator says so, and `startService` has not."""
    tamed = public_tamed
    tamed.write(
        "who.tac",
        "import os\nfrom twisted.application import service\nfrom twisted.python import log\n"
        "class Who(service.Service):\n"
        "    def privilegedStartService(self):\n        log.msg('privileged %d' % os.geteuid())\n"
        "    def startService(self):\n        log.msg('started %d' % os.geteuid())\n"
        "application = service.Application('who')\nWho().setServiceParent(application)\n",
    )
    with tamed.foreground("run", "--user", "nobody", "--prepare-as-root", "who.tac") as process:
        assert process.expect(r"privileged (\d+)")[1] == "0"
        assert process.expect(r"started (\d+)")[1] == "65534"
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


@needs_root
def test_an_application_that_says_its_user_does_not_run_as_root(tamed: Tamed) -> None:
    """Where twistd would become that user, here the operator says so."""
    tamed.write(
        "who.tac",
        "from twisted.application import service\napplication = service.Application('who', uid=65534)\n",
    )
    done = tamed("run", "who.tac")
    assert done.status == 78
    assert "who must run as user 65534: this process is root; use --user 65534" in done.err


def test_the_log_tells_of_failures_with_their_tracebacks(tamed: Tamed) -> None:
    """In the old way and in the new one, with level and namespace."""
    tamed.write(
        "logs.tac",
        "from twisted.application import service\nfrom twisted.python import log\n"
        "from twisted.logger import Logger\nfrom twisted.internet import defer, reactor\n"
        "new = Logger('verse.metre')\n"
        "class Logs(service.Service):\n"
        "    def startService(self):\n"
        "        log.msg('old news')\n"
        "        new.warn('a {kind} foot', kind='lame')\n"
        "        new.debug('not told')\n"
        "        try:\n            {}['rhyme']\n"
        "        except KeyError:\n"
        "            log.err(None, 'old trouble')\n"
        "            new.failure('new trouble')\n"
        "        defer.fail(ValueError('nobody listens'))\n"
        "        reactor.callLater(0, reactor.stop)\n"
        "application = service.Application('logs')\nLogs().setServiceParent(application)\n",
    )
    done = tamed("run", "logs.tac")
    assert done.status == 0
    log = done.err
    assert re.search(r"INFO twisted: old news\n", log)
    assert re.search(r"WARNING verse.metre: a lame foot\n", log)
    assert "not told" not in log
    assert re.search(r"CRITICAL twisted: old trouble\n", log)
    assert re.search(r"CRITICAL verse.metre: new trouble\n", log)
    assert log.count("KeyError: 'rhyme'") == 2
    assert log.count('logs.tac", line 12, in startService') == 2
    assert "ValueError: nobody listens" in log


def test_the_application_s_own_log_observer_is_respected(tamed: Tamed) -> None:
    """Twisted's log goes to that observer only."""
    tamed.write(
        "own.tac",
        "from twisted.application import service\nfrom twisted.python import log\n"
        "from twisted.internet import reactor\n"
        "application = service.Application('own')\n"
        "out = open('own.log', 'a', buffering=1)\n"
        "tell = lambda event: out.write('own: %s\\n' % (event['message'],))\n"
        "application.setComponent(log.ILogObserver, tell)\n"
        "log.msg('before')\n"
        "reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)\n",
    )
    done = tamed("run", "own.tac")
    assert done.status == 0
    assert "own: ('before',)" in (tamed.folder / "own.log").read_text()
    assert "before" not in done.out + done.err


# Binds a socket itself, on a port that every process may bind, and has the reactor adopt it.
ADOPT = f"""
import os, socket
from twisted.application import service
from twisted.internet import protocol, reactor

{PROTOCOL}
class Adopting(service.Service):
    def startService(self):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", @NUMBER@))
            sock.listen()
            sock.setblocking(False)
            reactor.adoptStreamPort(sock.fileno(), socket.AF_INET, protocol.Factory.forProtocol(Talk))

application = service.Application("adopt")
Adopting().setServiceParent(application)
"""


@pytest.fixture
def reserved() -> Iterator[int]:
    """Give a port that nobody else gets, and that each process may bind that asks to share it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def test_connections_of_an_adopted_port_are_counted_and_drained(tamed: Tamed, reserved: int) -> None:
    """The status shows them, and a reload serves them to their end.

    Who waits at a socket that one process alone has is served by that, and nobody is reset.
    """
    tamed.write("adopt.tac", ADOPT.replace("@NUMBER@", str(reserved)))
    daemon = tamed.start("adopt.tac")
    with socket.create_connection(("127.0.0.1", reserved), timeout=PATIENCE) as sock:
        file = sock.makefile("rb")
        old = int(file.readline())
        (worker,) = daemon.status()["workers"]
        assert (worker["connections"], worker["accepted"]) == (1, 1)
        assert tamed("reload", daemon.name).status == 0
        daemon.wait_workers(1, without=[old])
        sock.sendall(b"?")
        assert file.read() == b"poem"
    with talk.Load(reserved, clients=2) as load:
        load.wait(50)
        for _ in range(ROUNDS):
            before = daemon.workers()
            assert tamed("reload", daemon.name).status == 0
            daemon.wait_workers(1, without=before)
            load.wait(50)
    assert load.failed == []
    daemon.stop()
