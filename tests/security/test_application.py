"""What an application can do to its supervisor by what ties the two together: nothing that outlasts it."""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.security import live
from tests.supervised.daemon import Daemon, Tamed, needs_root, wait_for

MUCH = 48 << 20
"""Bytes that an application writes, where they are taken fast."""

LITTLE = 32 << 20
"""Bytes that a supervisor may grow by: what it takes in a turn, cut, looked through and written anew."""

NOT_UNDERSTOOD = "sent an invalid message"

# It writes what a file says to a descriptor of its worker's, again and again, while it serves.
FLOODING = """
import os, signal, sys, threading
from tamed import Application, Service

class Flood(Service):
    async def start(self):
        what, number, much = open("what", "rb").read(), {number}, {much}
        def write():
            written = place = 0
            os.set_blocking(number, True)
            try:
                while written < much:
                    count = os.write(number, what[place : place + 65536])
                    written, place = written + count, (place + count) % len(what)
            except OSError:
                pass
            open({written!r}, "w").close()
        threading.Thread(target=write, daemon=True).start()

application = Application("app", Flood("flood"))
"""


def lines(*messages: object) -> bytes:
    """Return messages as they go over a channel."""
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def deep(depth: int) -> bytes:
    """Return a report whose tree is too deep."""
    return b'{"report": ' + b'{"children": [' * depth + b"]}" * depth + b"}\n"


# What is no message at all is tried in tests/supervised/test_workers.py, one by one.
def on_the_channel() -> Iterator[tuple[str, int, bytes, int]]:
    """Yield messages that name ever more, and bytes that are none, for the descriptor of the channel.

    With them how many bytes are written.
    """
    files = (lines({"files": {f"/{number}-{'x' * 1000}": number}}) for number in range(20_000))
    reasons = (lines({"recycle": f"{number} {'x' * 1000}"}) for number in range(2000))
    addresses = (
        lines({"listen": f"127.0.0.{index % 250 + 1}:0", "kind": 1, "index": index // 250, "number": index})
        for index in range(5000)
    )
    yield "files", 3, b"".join(files), MUCH
    yield "reasons to be replaced", 3, b"".join(reasons), MUCH
    yield "addresses", 3, b"".join(addresses), 4 << 20  # fifty thousand, each of which is answered
    yield "trees without an end", 3, deep(100_000), MUCH
    yield "noise", 3, random.Random(7).randbytes(65536), MUCH


def in_log_and_output() -> Iterator[tuple[str, int, bytes, int]]:
    """Yield what is no record, and output without an end, for their descriptors."""
    yield "beginnings of records", 4, b"\xff" * 65536, 4 << 20
    yield "output without a newline", 1, b"x" * 65536, 4 << 20
    yield "zeros as records", 4, bytes(65536), 4 << 20


@pytest.mark.parametrize("floods", [on_the_channel, in_log_and_output])
def test_what_an_application_writes_for_ever_is_not_kept(
    tamed: Tamed, floods: Callable[[], Iterator[tuple[str, int, bytes, int]]]
) -> None:
    """Its supervisor answers, obeys and needs no more memory, whatever comes by channel, log and output."""
    quiet = tamed.write("quiet.py", "from tamed import Application\napplication = Application('app')\n")
    app = tamed.folder / "app.py"
    app.symlink_to(quiet)
    daemon = tamed.start("--log-rotate", "1 MB", "--log-keep", "2", app)
    assert tamed("reload").status == 0
    before = live.memory(daemon.pid)
    for name, number, what, much in floods():
        (tamed.folder / "what").write_bytes(what)
        app.unlink()
        written = tamed.folder / f"{name} is written"
        app.write_text(FLOODING.format(number=number, much=much, written=str(written)))
        refused = daemon.log.count(NOT_UNDERSTOOD)
        (worker,) = daemon.workers()
        os.kill(worker, signal.SIGKILL)  # what takes its place reads the code of now
        wait_for(f"the end of {name}", partial(_is_over, daemon, written, refused))
        assert daemon.status()["pid"] == daemon.pid
        assert live.memory(daemon.pid) < before + LITTLE, name
        app.unlink()
        app.symlink_to(quiet)
        assert tamed("reload").status == 0, name
        assert live.memory(daemon.pid) < before + LITTLE, name
    daemon.stop()


def _is_over(daemon: Daemon, written: Path, refused: int) -> bool:
    return written.exists() or daemon.log.count(NOT_UNDERSTOOD) > refused


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
