"""A daemon that is none: a process that holds the pid file of an instance, and answers as it is told to."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from tamed.unix.rundir import Instance

__all__ = ["ENDLESS", "SLOW", "stand_in"]

ENDLESS = "client.sendall(b'x' * 65536)"
"""An answer without an end."""

SLOW = "client.sendall(b'x'); time.sleep(1)"
"""An answer of a byte now and then."""

# What it is asked it prints. It goes on until it is killed, so a command that leaves early is no error.
_PROGRAM = """
import contextlib, json, os, signal, socket, sys, time
from pathlib import Path
from tamed.unix.pidfile import PidFile
pid_file, path, told = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
if told["uid"] is not None:
    os.setresuid(*[told["uid"]] * 3)
for number in told["deaf"]:
    signal.signal(number, signal.SIG_IGN)
with PidFile.acquire(pid_file), socket.socket(socket.AF_UNIX) as listening:
    if told["answer"] is None:
        print(flush=True)
        while True:
            signal.pause()
    path.unlink(missing_ok=True)
    listening.bind(str(path))
    listening.listen()
    print(flush=True)
    while True:
        with listening.accept()[0] as client, contextlib.suppress(ConnectionError):
            print(client.makefile().readline(), end="", flush=True)
            client.sendall(told["answer"].encode())
            while told["more"]:
                exec(told["more"])
"""


@contextmanager
def stand_in(
    instance: Instance,
    answer: str | None = None,
    more: str = "",
    *,
    deaf: Iterable[int] = (),
    uid: int | None = None,
    before: Sequence[str] = (),
) -> Iterator[subprocess.Popen[str]]:
    """Run one until the end of the ``with``; its standard output has what it was asked.

    Without an answer it has no control socket. ``more`` is a statement that it repeats after the answer. It
    becomes the user ``uid``, ignores the signals ``deaf``, and is run by the command ``before``.
    """
    told = json.dumps({"answer": answer, "more": more, "deaf": [int(each) for each in deaf], "uid": uid})
    words = [str(instance.pid_file), str(instance.socket), told]
    command = [*before, sys.executable, "-c", _PROGRAM, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()
