"""Real servers for the engines: each on a free port, in a folder of its own, without privileges."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.patience import PATIENCE

__all__ = ["Serving", "free_port", "nats", "own_folder", "postgres"]

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
def nats(*arguments: str | Path, stream: bool = True) -> Iterator[Serving]:
    """Run nats-server, with or without JetStream."""
    program = shutil.which("nats-server") or "/usr/sbin/nats-server"
    if not Path(program).exists():
        pytest.skip("nats-server is not installed")
    with own_folder() as folder:
        options = [*arguments, *(("--jetstream", "--store_dir", folder) if stream else ())]
        port, server = _at_free_port(
            lambda port: Server(
                [program, "--addr", "127.0.0.1", "--port", str(port), *options], folder, "Server is ready"
            )
        )
        try:
            yield Serving(port, lambda at: f"nats://127.0.0.1:{at}")
        finally:
            server.stop()


def _at_free_port(start: Callable[[int], Server]) -> tuple[int, Server]:
    """Start a server; with another port, if somebody else has taken this one in the meantime."""
    while True:
        port = free_port()
        server = start(port)
        if server.is_ready:
            return port, server
        server.stop()
        assert "in use" in "".join(server.lines), server.lines
