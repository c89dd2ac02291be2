"""HAProxy in front of two daemons, of which one stops under load: by health checks, or by the agent."""

import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from tamed.errors import TamedError
from tests.patience import PATIENCE, ROUNDS
from tests.supervised.daemon import Daemon, Tamed, wait_for

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")

APPLICATION = """
from tamed import Application, StreamServer


async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\nok\\n")
    writer.close()


application = Application("web", StreamServer("127.0.0.1:0", answer))
"""
CONFIGURATION = """
global
    stats socket {stats} mode 600 level admin
    maxconn 1000
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
    timeout check 60s
    retries 0
frontend web
    bind fd@{listening}
    default_backend instances
backend instances
    balance roundrobin
    option httpclose
    {checks}
{servers}
"""
READINESS = "option httpchk GET /readyz"
BY_READINESS = "check inter {interval} fall 3 rise 1 port {ops}"
BY_AGENT = "agent-check agent-inter {interval} agent-port {agent}"
REQUESTS = 300 if ROUNDS == 1 else 50_000
CLIENTS = 4
PAUSE = 0.01 if ROUNDS == 1 else 0.0
"""Seconds between two requests of a client: each looks several times while the instance ends."""


class Instance(NamedTuple):
    """A daemon, and the ports of its endpoints."""

    daemon: Daemon
    ops: int
    agent: int


@contextmanager
def instances(tamed: Tamed, *options: str) -> Iterator[list[Instance]]:
    """Start two daemons, with endpoints for health checks and for an agent check."""
    tamed.write("web.py", APPLICATION)
    with ExitStack() as held:
        yield [held.enter_context(instance(tamed, name, *options)) for name in ("one", "two")]


@contextmanager
def instance(tamed: Tamed, name: str, *options: str) -> Iterator[Instance]:
    """Start a daemon in the foreground, which can be given sockets."""
    with ExitStack() as held:
        with socket.create_server(("127.0.0.1", 0)) as ops, socket.create_server(("127.0.0.1", 0)) as agent:
            sockets = (ops.fileno(), agent.fileno())
            endpoints = ("--ops", f"fd://{sockets[0]}", "--ops-agent", f"fd://{sockets[1]}")
            command = ("--name", name, "--workers", "1", *endpoints, *options, "web.py")
            log = ("--log-file", str(tamed.folder / f"{name}.log"))
            process = held.enter_context(tamed.popen("run", *log, *command, pass_fds=sockets))
            found = Instance(
                Daemon(tamed, name, process.pid, []), ops.getsockname()[1], agent.getsockname()[1]
            )
        yield wait_for(f"instance {name}", lambda: _ready(found))
        process.terminate()
        if "--stop-delay" in options:  # which the second signal ends, when it has handled the first one
            text = (tamed.folder / f"{name}.log").read_text
            wait_for("the begin of the stop", lambda: "SIGTERM: stopping" in text())
            process.terminate()
        assert process.wait(PATIENCE) == 0


def _ready(found: Instance) -> Instance | None:
    with suppress(TamedError):
        status = found.daemon.status()
        if status["state"] == "running":
            found.daemon.addresses.extend(status["endpoints"])
            return found
    return None


class Balancer:
    """HAProxy, with its state and its clients."""

    def __init__(self, folder: Path, checks: str, server: str, found: list[Instance]) -> None:
        folder.mkdir()
        self.stats = folder / "haproxy.sock"
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        lines = (
            f"    server {each.daemon.name} 127.0.0.1:{each.daemon.port} "
            + server.format(interval="1s", ops=each.ops, agent=each.agent)
            for each in found
        )
        number = self.listening.fileno()
        text = CONFIGURATION.format(
            stats=self.stats, listening=number, checks=checks, servers="\n".join(lines)
        )
        self._file = folder / "haproxy.cfg"
        self._file.write_text(text)

    def __enter__(self) -> Self:
        command = ["haproxy", "-db", "-f", str(self._file)]
        self._process = subprocess.Popen(
            command, pass_fds=[self.listening.fileno()], stderr=subprocess.DEVNULL
        )
        wait_for("the balancer", self.stats.exists)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        self.listening.close()

    def state(self, name: str) -> str:
        """Return the state of a server."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.stats))
            client.sendall(b"show stat\n")
            table = client.makefile().read()
        heads, *rows = (line.split(",") for line in table.splitlines() if line)
        row = next(row for row in rows if row[:2] == ["instances", name])
        return row[heads.index("status")]

    def wait(self, name: str, pattern: str) -> None:
        """Wait for a state of a server."""
        wait_for(f"{name} to be {pattern}", lambda: re.match(pattern, self.state(name)))


class Load:
    """Clients that request all the time."""

    def __init__(self, port: int) -> None:
        self.done = self.failed = 0
        self._port = port
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._request) for _ in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _request(self) -> None:
        while not self._over.wait(PAUSE):
            is_good = self._answer().endswith(b"\r\n\r\nok\n")
            with self._lock:
                self.done += 1
                self.failed += not is_good

    def _answer(self) -> bytes:
        with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            return sock.makefile("rb").read()

    def wait(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        wanted = self.done + count
        wait_for("the requests", lambda: self.done >= wanted, PATIENCE * ROUNDS)


@pytest.mark.unmeasured
def test_balancers_take_a_stopping_instance_out_without_a_failed_request(tamed: Tamed) -> None:
    """During the delay of the stop they see that the instance stops, and send clients elsewhere.

    One of them looks at its readiness, the other asks its agent.
    """
    with ExitStack() as held:
        one, _ = found = held.enter_context(instances(tamed, "--stop-delay", "1h"))
        by_readiness, by_agent = balancers = [
            held.enter_context(Balancer(tamed.folder / way, checks, server, found))
            for way, checks, server in (("readiness", READINESS, BY_READINESS), ("agent", "", BY_AGENT))
        ]
        for balancer in balancers:
            for each in found:
                balancer.wait(each.daemon.name, "UP|no check")
        loads = [held.enter_context(Load(balancer.port)) for balancer in balancers]

        def continue_loads() -> None:
            for load in loads:
                load.wait(REQUESTS // 3)

        continue_loads()
        one.daemon.signal(signal.SIGTERM)
        by_readiness.wait(one.daemon.name, "DOWN")
        by_agent.wait(one.daemon.name, "DRAIN")
        continue_loads()
        one.daemon.signal(signal.SIGTERM)
        one.daemon.wait_gone()
        continue_loads()
    assert [load.failed for load in loads] == [0, 0]
    assert all(load.done >= REQUESTS - 3 for load in loads)


@pytest.mark.long  # it shows no more than that the test above can fail
@pytest.mark.unmeasured
def test_without_a_delay_requests_fail_until_the_balancer_has_noticed(tamed: Tamed) -> None:
    """So the delay is what the test above shows: the balancer asks once an hour here."""
    with ExitStack() as held:
        one, _ = found = held.enter_context(instances(tamed))
        server = BY_READINESS.replace("{interval}", "1h")
        balancer = held.enter_context(Balancer(tamed.folder / "readiness", READINESS, server, found))
        for each in found:
            balancer.wait(each.daemon.name, "UP")
        load = held.enter_context(Load(balancer.port))
        load.wait(20)
        assert load.failed == 0
        one.daemon.signal(signal.SIGTERM)
        wait_for("a failed request", lambda: load.failed)
        one.daemon.wait_gone()
