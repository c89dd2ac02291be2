"""A service that writes down when it runs, and whether another one did: the referee of the tests of roles."""

from typing import NamedTuple

from tests.supervised.daemon import Tamed

# A lock of flock(2) is free when its process has ended, or the service has stopped, and never before.
SERVICE = """
import fcntl, os, time
from tamed import Service

class Referee(Service):
    async def start(self):
        self.lock = open("lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.note("overlap")
        self.note("start")

    async def stop(self):
        self.note("stop")
        self.lock.close()

    def note(self, what):
        with open("referee", "a") as file:
            file.write(f"{what} {os.getpid()} {self.lease.token} {time.monotonic()}\\n")
"""


class Note(NamedTuple):
    """A line of the referee."""

    what: str
    pid: int
    token: int
    time: float


def notes(tamed: Tamed) -> list[Note]:
    """Return what the holders have written, in order."""
    try:
        lines = (tamed.folder / "referee").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [Note(w[0], int(w[1]), int(w[2]), float(w[3])) for w in map(str.split, lines)]


def check(tamed: Tamed) -> None:
    """Nobody has run the service while another one did, and each holder had a larger token."""
    found = notes(tamed)
    assert [note for note in found if note.what == "overlap"] == []
    tokens = [note.token for note in found if note.what == "start"]
    assert tokens == sorted(set(tokens))
