"""What workers have counted is counted exactly, whatever becomes of them: kills, reloads, upgrades at random.

A worker marks in a shared file that it is counting and answering. It is killed only while it is not, so each
request has either been counted and answered, or neither; without that, nobody could say which.
"""

import itertools
import logging
import mmap
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from tests.patience import PATIENCE, ROUNDS
from tests.supervised.daemon import Daemon, Tamed, wait_for
from tests.supervised.test_ops import get_once, is_late, samples_of, scrape

log = logging.getLogger(__name__)

WORKERS = 3
CLIENTS = 4
PAUSE = 0.005 if ROUNDS == 1 else 0.0
"""Seconds between two connections of a client, and between two looks: there are hundreds of each."""
REQUESTS = 3  # on a connection
SEED = 20

SERVED = 'served_total{kind="a"}'
KILLED = 'tamed_worker_ends_total{reason="SIGKILL"}'

APPLICATION = """
import mmap
import os
from prometheus_client import Counter, Gauge, Histogram

from tamed import Application, StreamServer

SERVED = Counter("served", "Served requests.", ["kind"])
BUSY = Gauge("busy", "Open connections.", multiprocess_mode="livesum")
TOOK = Histogram("took_seconds", "How long it took.", buckets=[1])

with open(f"busy.{os.getpid()}", "w+b") as file:
    file.truncate(1)
    busy = mmap.mmap(file.fileno(), 1)


async def serve(reader, writer):
    with BUSY.track_inprogress():
        while await reader.readline():
            busy[0] = 1
            SERVED.labels("a").inc()
            TOOK.observe(0.5)
            writer.write(b"served\\n")  # which asyncio's own loop sends at once
            busy[0] = 0


application = Application("counting", StreamServer("unix:counting.sock", serve))
"""


class Clients:
    """Clients that are served all the time, and count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._counts = [0] * CLIENTS
        self.broken = 0
        self._threads = [threading.Thread(target=self._come, args=(number,)) for number in range(CLIENTS)]

    @property
    def served(self) -> int:
        """The number of requests that were answered."""
        return sum(self._counts)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Come until the end of the block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()

    def _come(self, number: int) -> None:
        while not self._over.wait(PAUSE):
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(PATIENCE)
                    client.connect(str(self._path))
                    answers = client.makefile("rb")
                    for _ in range(REQUESTS):
                        client.sendall(b"\n")
                        if answers.readline() == b"served\n":
                            self._counts[number] += 1
                        else:
                            self.broken += 1
                            break
            except ConnectionError:
                self.broken += 1


class Watch:
    """Probes and scrapes all the time: always alive and ready, and each sum what the clients have counted."""

    def __init__(self, ops: Path, clients: Clients) -> None:
        self._ops = ops
        self._clients = clients
        self._last = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on)
        self.wrong: list[str] = []
        self.figures: Counter[str] = Counter()

    @contextmanager
    def looking_on(self) -> Iterator[None]:
        """Watch until the end of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _look_on(self) -> None:
        while not self._over.wait(PAUSE):
            for target in ("/livez", "/readyz"):
                status, text = get_once(self._ops, target)
                self._judge(target, status, text)
            before = self._clients.served
            status, text = get_once(self._ops, "/metrics")
            if self._judge("/metrics", status, text if status != 200 else ""):
                self._compare(samples_of(text), before, self._clients.served + CLIENTS)

    def _judge(self, target: str, status: int, text: str) -> bool:
        """Return whether a request has got its answer. On a machine that is overloaded, some come late."""
        late = is_late(status, text)
        self.figures[f"{target} {'late' if late else status}"] += 1
        if status != 200 and not late:
            self.wrong.append(f"{target}: {status} {text}")
        return status == 200

    def _compare(self, samples: dict[str, float], least: int, most: int) -> None:
        for name in (SERVED, "took_seconds_count"):
            value = samples.get(name, 0.0)  # there is no series before the first request
            if not max(least, self._last if name == SERVED else 0) <= value <= most:
                self.wrong.append(f"{name} {value}: not from {max(least, self._last)} to {most}")
        self._last = samples.get(SERVED, 0.0)


def kill(daemon: Daemon, random: Random, killed: set[int]) -> None:
    """Kill a worker that is not counting just now. There are others that are ready, so it is no outage."""

    def several() -> list[int]:
        found = [pid for pid in daemon.workers() if pid not in killed]  # the supervisor may not know yet
        return found if len(found) > 1 else []

    ready = wait_for("several workers", several)
    for pid in itertools.cycle(random.sample(ready, len(ready))):
        with suppress(ProcessLookupError, FileNotFoundError):  # it may be leaving, after a reload
            os.kill(pid, signal.SIGSTOP)
            if not _is_stopped(pid):
                continue
            is_counting = _is_counting(daemon.tamed.folder, pid)
            os.kill(pid, signal.SIGCONT if is_counting else signal.SIGKILL)
            if not is_counting:
                killed.add(pid)
                return


def _is_stopped(pid: int) -> bool:
    """Wait until a process is stopped; return False if it has ended instead."""
    status = Path(f"/proc/{pid}/stat")

    def state() -> str:
        return status.read_text().rpartition(")")[2].split()[0]

    wait_for("the stop", lambda: state() in "TtZX")
    return state() in "Tt"


def _is_counting(folder: Path, pid: int) -> bool:
    """Return whether a process, which is stopped, is counting and answering."""
    with (
        (folder / f"busy.{pid}").open("rb") as file,
        mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ) as busy,
    ):
        return busy[0] == 1


@pytest.mark.unmeasured
def test_clients_and_counters_agree_whatever_happens(tamed: Tamed) -> None:
    """The sum is what the clients have counted, at each scrape and at the end, and the probes always pass."""
    tamed.write("counting.py", APPLICATION)
    ops = tamed.folder / "ops.sock"
    options = ("--workers", str(WORKERS), "--loop", "asyncio", "--ops", "unix:ops.sock")
    daemon = tamed.start(*options, "counting.py")
    counts = (
        {"kill": 3, "reload": 1, "upgrade": 1} if ROUNDS == 1 else {"kill": 20, "reload": 5, "upgrade": 1}
    )
    deck = [action for action, count in counts.items() for _ in range(count * ROUNDS)]
    random = Random(SEED)
    random.shuffle(deck)
    clients = Clients(tamed.folder / "counting.sock")
    watch = Watch(ops, clients)
    killed: set[int] = set()
    with watch.looking_on(), clients.coming():
        for action in deck:
            if action == "kill":
                kill(daemon, random, killed)
            else:
                assert tamed(action, daemon.name).status == 0
    wait_for("all deaths", lambda: scrape(ops).get(KILLED, 0) >= counts["kill"] * ROUNDS)
    samples = scrape(ops)
    log.info("%d served, %d broken; %s", clients.served, clients.broken, dict(watch.figures))
    assert watch.wrong == []
    assert samples[SERVED] == samples["took_seconds_count"] == clients.served
    assert samples["took_seconds_sum"] == clients.served / 2
    assert samples[KILLED] == counts["kill"] * ROUNDS
    assert not [name for name in samples if "pid" in name]
    daemon.stop()
