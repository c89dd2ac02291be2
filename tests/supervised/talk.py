"""An application that does what its clients say, and the clients."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

from tests.patience import PATIENCE
from tests.supervised.daemon import wait_for

# Says which process it is, waits for a word, does what it says, and recites.
APPLICATION = """
import asyncio, ctypes, os, sys, time
from tamed import Application, Service, StreamServer

async def recite(reader, writer):
    writer.write(b"%d\\n" % os.getpid())
    match (await reader.readline()).strip():
        case b"block":
            time.sleep(3600)
        case b"exit":
            application.exit(5)
        case b"crash":
            print("about to crash")
            ctypes.string_at(0)
        case b"babble":
            os.write(3, b"this is no message\\n")
        case b"utter":
            os.set_blocking(3, True)
            line = open("line", "rb").read()
            while line:
                line = line[os.write(3, line) :]
            await asyncio.sleep(3600)
        case b"hush":
            os.closerange(3, 5)
        case b"print":
            print("printed")
            os.system("echo by a child >&2")
            assert os.isatty(0) is False and (told := sys.stdin.read()) == "", repr(told)[:300]
        case b"orphan":
            os.system("(sleep 0.01 &) &")
    writer.write(b"poem")

application = Application("app", StreamServer("127.0.0.1:0", recite))
"""


PAUSE = 0.005
"""Seconds between two clients of a thread, who leave processors to what they are to disturb."""


class Heard(NamedTuple):
    """What a client has got: the pid of the worker that served it, 0 if it did not say, and the rest."""

    worker: int
    rest: bytes


@contextmanager
def connected(port: int) -> Iterator[tuple[int, socket.socket]]:
    """Connect, and tell which worker answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        line = b""
        while not line.endswith(b"\n"):
            if not (byte := sock.recv(1)):
                raise ConnectionResetError
            line += byte
        yield int(line), sock


def finish(sock: socket.socket, word: bytes = b"recite") -> bytes:
    """Say a word and read to the end."""
    sock.sendall(word + b"\n")
    return sock.makefile("rb").read()


def say(port: int, word: bytes) -> Heard:
    """Say a word to a worker and hear it out, as far as it comes."""
    worker, rest = 0, b""
    try:
        with connected(port) as (worker, sock):
            rest = finish(sock, word)
    except ConnectionError:
        pass
    return Heard(worker, rest)


class Load:
    """Clients that come one after the other, in several threads, until it is left."""

    def __init__(self, port: int, clients: int = 8) -> None:
        self.heard: list[Heard] = []
        self._is_over = threading.Event()
        self._port = port
        self._threads = [threading.Thread(target=self._come) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> list[Heard]:
        """What those have got who did not get everything."""
        return [heard for heard in self.heard if heard.rest != b"poem"]

    def wait(self, more: int) -> None:
        """Wait until so many more have come."""
        count = len(self.heard) + more
        wait_for("clients", lambda: len(self.heard) >= count)

    def _come(self) -> None:
        while not self._is_over.wait(PAUSE):
            self.heard.append(say(self._port, b"recite"))
