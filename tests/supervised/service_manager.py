"""A stand-in for systemd: the socket of the notify protocol, and the journal's socket and stream."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.patience import PATIENCE

Variables = dict[str, str]


class ServiceManager:
    """Receives what a service notifies it of. ``env`` has what the service needs in its environment."""

    def __init__(self, path: Path, listening: socket.socket) -> None:
        self.env = {"NOTIFY_SOCKET": str(path)}
        self.heard: list[Variables] = []
        self._listening = listening

    def receive(self) -> Variables:
        """Return the next message."""
        lines = self._listening.recv(65536).decode().splitlines()
        message = dict(line.split("=", 1) for line in lines)
        self.heard.append(message)
        return message

    def expect(self, name: str, begins: str = "") -> Variables:
        """Wait for a message with this variable, whose value begins so; return it."""
        while True:
            message = self.receive()
            if name in message and message[name].startswith(begins):
                return message

    def rest(self) -> list[Variables]:
        """Return what has arrived and was not received yet."""
        found = []
        self._listening.setblocking(False)
        try:
            while True:
                found.append(self.receive())
        except BlockingIOError:
            self._listening.settimeout(PATIENCE)
            return found


@contextmanager
def service_manager(folder: Path) -> Iterator[ServiceManager]:
    """Yield a service manager whose socket is in this folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(folder / "notify"))
        listening.settimeout(PATIENCE)
        yield ServiceManager(folder / "notify", listening)


@contextmanager
def stream_of_the_journal(folder: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield a descriptor for standard error, and the variable which says that it is the journal's."""
    with ExitStack() as opened:
        file = opened.enter_context((folder / "stream").open("wb"))
        status = os.fstat(file.fileno())
        yield file.fileno(), {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
