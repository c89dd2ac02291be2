"""Real servers for the engines: each at a free place, in a folder of its own, without privileges."""

import os
import secrets
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from tests.patience import PATIENCE
from tests.threaded import in_thread

__all__ = [
    "Serving",
    "free_port",
    "nats",
    "old_nats",
    "old_postgres",
    "own_folder",
    "postgres",
    "three_of_nats",
]

PASSWORD: Final = "correct horse"


class Server:
    """A server's process, which is ready when it has printed ``ready``."""

    def __init__(self, command: list[str | Path], folder: Path, ready: str) -> None:
        self.lines: list[str] = []
        self._ready = ready
        self._event = threading.Event()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **as_other(folder),
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._event.wait(PATIENCE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if self._ready in line:
                self._event.set()
        self._event.set()

    @property
    def is_ready(self) -> bool:
        """Whether it came up; if not, ``lines`` say why."""
        return any(self._ready in line for line in self.lines)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End the server."""
        self._process.send_signal(number)
        self._process.wait(PATIENCE)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def as_other(folder: Path) -> dict[str, Any]:
    """Return what makes Popen run a server as a user without privileges, who gets the folder."""
    if os.geteuid() != 0:
        return {}
    shutil.chown(folder, "nobody")
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}


@contextmanager
def own_folder() -> Iterator[Path]:
    """Make a folder that a user without privileges can reach, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="tamed-test-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """Return a port of this host that nothing listens on, at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


class Serving:
    """A server that is ready: ``url_at`` returns its engine's URL with another port, that of a relay."""

    def __init__(self, port: int, url_at: Callable[[int], str]) -> None:
        self.port = port
        self.url_at = url_at
        self.url = url_at(port)


@contextmanager
def postgres(*, role: str = "tamed") -> Iterator[Serving]:
    """Run PostgreSQL, with one user who needs a password."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("initdb is not installed: postgresql")
    with own_folder() as folder:
        password = folder / "password"
        password.write_text(PASSWORD + "\n")
        options = [
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "--locale=C",
            "--encoding=UTF8",
            "--no-sync",
        ]
        subprocess.run(
            [programs[-1], "-D", folder / "data", "-U", role, *options],
            cwd=folder, check=True, capture_output=True, **as_other(folder),
        )  # fmt: skip
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        command: list[str | Path] = [programs[-1].with_name("postgres"), "-D", folder / "data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        port, server = _at_free_port(
            lambda port: Server([*command, "-p", str(port)], folder, "database system is ready to accept")
        )
        try:
            yield Serving(
                port, lambda at: f"postgres://{role}@127.0.0.1:{at}/postgres?password-file={password}"
            )
        finally:
            server.stop(signal.SIGQUIT)


@contextmanager
def nats(*arguments: str | Path, stream: bool = True, address: str = "127.0.0.1") -> Iterator[Serving]:
    """Run nats-server, with or without JetStream."""
    program = shutil.which("nats-server") or "/usr/sbin/nats-server"
    if not Path(program).exists():
        pytest.skip("nats-server is not installed")
    with own_folder() as folder:
        options = [*arguments, *(("--jetstream", "--store_dir", folder) if stream else ())]
        port, server = _at_free_port(
            lambda port: Server(
                [program, "--addr", address, "--port", str(port), *options], folder, "Server is ready"
            )
        )
        try:
            yield Serving(port, lambda at: f"nats://{address}:{at}")
        finally:
            server.stop()


@contextmanager
def _pretended(greeting: bytes, answer: bytes) -> Iterator[int]:
    """Say something to whoever connects, and the answer to the first that is heard; return the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(greeting)
            with suppress(ConnectionError):
                if self.request.recv(1000):
                    self.request.sendall(answer)
                while self.request.recv(1000):
                    pass

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with in_thread(server) as port:
        yield port


@contextmanager
def old_nats() -> Iterator[Serving]:
    """Pretend to be a server of NATS that is too old."""
    about = b'{"server_id": "A", "version": "2.8.4", "headers": true, "max_payload": 1048576}'
    with _pretended(b"INFO " + about + b"\r\n", b"PONG\r\n") as port:
        yield Serving(port, lambda at: f"nats://127.0.0.1:{at}")


@contextmanager
def old_postgres() -> Iterator[Serving]:
    """Pretend to be a PostgreSQL that is too old."""

    def message(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("!i", 4 + len(content)) + content

    answer = (
        message(b"R", struct.pack("!i", 0))
        + message(b"S", b"server_version\x0013.4\x00")
        + message(b"S", b"in_hot_standby\x00off\x00")
        + message(b"S", b"default_transaction_read_only\x00off\x00")
        + message(b"K", struct.pack("!ii", 1, 1))
        + message(b"Z", b"I")
    )
    with _pretended(b"", answer) as port:
        yield Serving(port, lambda at: f"postgres://tamed@127.0.0.1:{at}/postgres?sslmode=disable")


@contextmanager
def three_of_nats() -> Iterator[str]:
    """Run a cluster of nats-server, on addresses that nobody else has; return its URL."""
    number = secrets.randbelow(2**16)
    addresses = [f"127.{number // 256}.{number % 256}.{last}" for last in (71, 72, 73)]
    routes = ",".join(f"nats://{each}:6222" for each in addresses)
    with ExitStack() as stack:
        places = []
        for each in addresses:
            options = ("--name", each, "--cluster_name", "test", "--cluster", f"nats://{each}:6222")
            served = stack.enter_context(nats(*options, "--routes", routes, address=each))
            places.append(f"{each}:{served.port}")
        yield f"nats://{','.join(places)}?replicas=3"


def _at_free_port(start: Callable[[int], Server]) -> tuple[int, Server]:
    """Start a server; with another port, if somebody else has taken this one in the meantime."""
    while True:
        port = free_port()
        server = start(port)
        if server.is_ready:
            return port, server
        server.stop()
        assert "in use" in "".join(server.lines), server.lines
