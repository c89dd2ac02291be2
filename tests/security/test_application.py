"""What an application can do to its supervisor by what ties the two together: nothing that outlasts it."""

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.security import live
from tests.supervised.daemon import Tamed, is_there, needs_root, wait_for

MUCH = 12 << 20
"""Bytes that an application writes, where they are taken fast."""

LITTLE = 10 << 20
"""Bytes that a supervisor may grow by: what it takes in a turn, cut, looked through and written anew."""


class Flood(NamedTuple):
    """What an application writes, how much of it, to which descriptor, and if that ends its worker."""

    name: str
    number: int
    what: bytes
    much: int
    ends: bool = False


# It writes what a file says to a descriptor of its worker's, again and again, whenever it is asked to. Its
# pipes are small, so that a supervisor that takes what is in one takes little.
FLOODING = """
import fcntl, json, os, threading, time
from tamed import Application, Service

class Flood(Service):
    async def start(self):
        for number in 1, 4:
            fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, 65536)
        threading.Thread(target=self.flood, daemon=True).start()

    def flood(self):
        while True:
            try:
                asked = open(f"asked of {os.getpid()}")
            except FileNotFoundError:
                time.sleep(0.01)
                continue
            os.remove(asked.name)
            self.write(**json.load(asked))

    def write(self, number, much, written):
        what = memoryview(open("what", "rb").read())
        os.set_blocking(number, True)
        try:
            for _ in range(-(-much // len(what))):  # each is whole, so that the next flood is understood
                rest = what
                while rest:
                    rest = rest[os.write(number, rest[:65536]) :]
        except OSError:
            pass
        os.set_blocking(number, False)
        open(written, "w").close()

application = Application("app", Flood("flood"))
"""


def lines(*messages: object) -> bytes:
    """Return messages as they go over a channel."""
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def deep(depth: int) -> bytes:
    """Return a report whose tree is too deep."""
    return b'{"report": ' + b'{"children": [' * depth + b"]}" * depth + b"}\n"


# What is no message at all is tried in tests/supervised/test_workers.py, one by one.
def on_the_channel() -> Iterator[Flood]:
    """Yield messages that name ever more, and bytes that are none, for the descriptor of the channel."""
    files = (lines({"files": {f"/{number}-{'x' * 1000}": number}}) for number in range(12_000))
    addresses = (
        lines({"listen": f"127.0.0.{index % 250 + 1}:0", "kind": 1, "index": index // 250, "number": index})
        for index in range(1000)
    )
    reasons = (lines({"recycle": f"{number} {'x' * 1000}"}) for number in range(2000))
    yield Flood("files", 3, b"".join(files), MUCH)
    yield Flood("addresses", 3, b"".join(addresses), 1 << 17)  # two thousand, each of which is answered
    yield Flood("reasons to be replaced", 3, b"".join(reasons), MUCH, ends=True)
    yield Flood("trees without an end", 3, deep(100_000), MUCH, ends=True)
    yield Flood("noise", 3, random.Random(7).randbytes(65536), MUCH, ends=True)


def in_log_and_output() -> Iterator[Flood]:
    """Yield what is no record, and output without an end, for their descriptors."""
    yield Flood("beginnings of records", 4, b"\xff" * 65536, 5 << 18)  # each is looked at
    yield Flood("output without a newline", 1, b"x" * 65536, MUCH)
    yield Flood("zeros as records", 4, bytes(65536), 4 << 20)


def test_what_an_application_writes_for_ever_is_not_kept(tamed: Tamed) -> None:
    """Its supervisor answers, obeys and needs no more memory, whatever comes by channel, log and output."""
    daemon = tamed.start("--log-rotate", "1 MB", "--log-keep", "2", tamed.write("app.py", FLOODING))
    assert tamed("reload").status == 0
    (worker,) = daemon.workers()
    for flood in (*on_the_channel(), *in_log_and_output()):
        before = live.memory(daemon.pid)
        (tamed.folder / "what").write_bytes(flood.what)
        written = tamed.folder / f"{flood.name} is written"
        asked = {"number": flood.number, "much": flood.much, "written": str(written)}
        tamed.write("asking", json.dumps(asked)).rename(tamed.folder / f"asked of {worker}")
        wait_for(f"the end of {flood.name}", partial(_is_over, written, worker))
        is_replaced = flood.ends or not is_there(worker)  # its own messages may come in the middle of another
        (worker,) = daemon.wait_workers(1, without=[worker] if is_replaced else [])
        assert tamed("reopen").status == 0, flood.name
        assert live.memory(daemon.pid) < before + LITTLE, flood.name
    before = live.memory(daemon.pid)
    assert tamed("reload").status == 0
    assert live.memory(daemon.pid) < before + LITTLE
    daemon.stop()


def _is_over(written: Path, worker: int) -> bool:
    return written.exists() or not is_there(worker)


# It asks its supervisor for each descriptor that this may have, as if that were a socket that was passed.
ASKING = """
import json, os, select, socket
from tamed import Application

channel = socket.socket(fileno=os.dup(3))
channel.setblocking(True)
got = []
for descriptor in range(60):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        question = {"listen": f"fd://{descriptor}", "kind": int(kind), "index": 0, "number": 7}
        channel.sendall(json.dumps(question).encode() + b"\\n")
        data, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 10)
        got += [str(socket.socket(fileno=each).getsockname()) for each in descriptors]
print("got", got, flush=True)
application = Application("app")
"""


@needs_root
def test_a_supervisors_own_sockets_are_not_handed_out(public_tamed: Tamed) -> None:
    """An application gets what was passed to the daemon, not the control socket or the daemon's name.

    Whoever had those could answer root in the place of the supervisor.
    """
    public_tamed.write("app.py", ASKING)
    daemon = public_tamed.start("--user", "nobody", "app.py")
    for word in ("status", "reload", "upgrade"):
        assert public_tamed(word, "app").status == 0
    daemon.expect_log(r"(?s)(got \[.*){3}")
    assert daemon.log.count("got []") == daemon.log.count("got") == 3
    daemon.stop()
