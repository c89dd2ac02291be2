"""Real etcd servers for tests."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.patience import PATIENCE

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="there is no etcd (etcd-server)")


class Etcd:
    """One etcd on loopback, which ``place`` names; ``options`` are more words of its command line."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.place = ""

    def start(self) -> Self:
        """Start it, and wait until it serves; with other ports, if somebody has taken these meanwhile."""
        while not self._serves(*_free_ports(2)):
            pass
        return self

    def _serves(self, clients: int, peers: int) -> bool:
        """Start it on two ports; return whether it serves, False if one of them is taken."""
        self.place = f"127.0.0.1:{clients}"
        peer = f"http://127.0.0.1:{peers}"
        scheme = "https" if "--cert-file" in self.options else "http"
        log = self.folder / "etcd.log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *("etcd", "--data-dir", str(self.folder / "data"), "--unsafe-no-fsync"),
                    *("--initial-cluster", f"default={peer}"),
                    *("--listen-client-urls", f"{scheme}://{self.place}"),
                    *("--advertise-client-urls", f"{scheme}://{self.place}"),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *self.options,
                ],
                stdout=output,
                stderr=output,
                env={**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"},
            )
        began = time.monotonic()
        while "ready to serve client requests" not in (text := log.read_text("utf-8", "replace")):
            if self.process.poll() is not None:
                assert "address already in use" in text, text[-2000:]
                return False
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.05)
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def etcd(folder: Path, *options: str) -> Iterator[Etcd]:
    """Run an etcd inside the ``with``."""
    server = Etcd(folder, *options)
    try:
        yield server.start()
    finally:
        server.stop()


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago: etcd cannot choose its own."""
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports: list[int] = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
