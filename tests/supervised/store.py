"""A stand-in for the service manager's store of descriptors, and a command that gets what is in it."""

import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tamed.unix.notify import Notifier
from tests.patience import PATIENCE

_BEFORE = """
import fcntl, os, sys
count = int(sys.argv[1])
copies = [fcntl.fcntl(int(each), fcntl.F_DUPFD_CLOEXEC, 100) for each in sys.argv[2 : 2 + count]]
os.closerange(3, 100)
for i, copy in enumerate(copies):
    os.dup2(copy, 3 + i)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count)}
os.environ["LISTEN_FDNAMES"] = sys.argv[2 + count]
os.execv(sys.argv[3 + count], sys.argv[3 + count :])
"""


class Store:
    """Obeys ``FDSTORE``, ``FDSTOREREMOVE`` and ``BARRIER``. ``kept`` has the descriptors by their names.

    ``env`` is what a service needs in its environment.
    """

    def __init__(self, path: Path, listening: socket.socket, most: int) -> None:
        self.env = {"NOTIFY_SOCKET": str(path), "FDSTORE": str(most)}
        self.kept: dict[str, socket.socket] = {}
        self._listening = listening

    def expect(self, name: str) -> dict[str, str]:
        """Obey until a message has this variable, which is obeyed too; return it."""
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._listening, 65536, 4)
            message = dict(line.split("=", 1) for line in data.decode().splitlines())
            if "FDSTORE" in message:
                assert re.fullmatch(r"[ -9;-~]{1,255}", message["FDNAME"])
                self.kept[message["FDNAME"]] = socket.socket(fileno=descriptors[0])
            elif "FDSTOREREMOVE" in message:
                self.kept.pop(message["FDNAME"]).close()
            elif "BARRIER" in message:
                os.close(descriptors[0])
            if name in message:
                return message

    @contextmanager
    def obeying(self) -> Iterator[None]:
        """Obey in a thread inside the block; at its end, all that was sent has been obeyed."""
        thread = threading.Thread(target=self.expect, args=("END",))
        thread.start()
        try:
            yield
        finally:
            with closing(Notifier(self.env["NOTIFY_SOCKET"])) as notifier:
                notifier.send({"END": "1"})
            thread.join()

    @property
    def descriptors(self) -> list[int]:
        """What is kept."""
        return [sock.fileno() for sock in self.kept.values()]

    def before(self) -> list[str]:
        """Return the words before a command that pass it what is kept, as systemd does."""
        numbers = [str(each) for each in self.descriptors]
        return [sys.executable, "-c", _BEFORE, str(len(numbers)), *numbers, ":".join(self.kept)]

    def close(self) -> None:
        """Close all that is kept."""
        for sock in self.kept.values():
            sock.close()


@contextmanager
def store_in(folder: Path, most: int = 8) -> Iterator[Store]:
    """Yield a store whose socket is in this folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(folder / "notify"))
        listening.settimeout(PATIENCE)
        store = Store(folder / "notify", listening, most)
        try:
            yield store
        finally:
            store.close()
