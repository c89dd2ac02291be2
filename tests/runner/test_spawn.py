"""Starting a process with exactly the specified descriptors, signals and directory."""

import json
import os
import signal
import sys

from tamed.supervisor.spawner import spawn

_TELL = """
import json, os, signal
kinds = {int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]}
blocked = [*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))]
status = open("/proc/self/status").read().splitlines()
caught = {int(line.split()[1], 16) & ~(3 << 31) for line in status if line.startswith("SigIgn:")}
os.write(1, json.dumps([sorted(fd for fd in kinds if fd < 5 or not kinds[fd].startswith("/proc/")),
                        blocked, *caught, os.getpgrp() == os.getpid() and os.getcwd() == "/"]).encode())
"""


def test_it_has_five_descriptors_and_default_signals() -> None:
    """The parent's inheritable descriptors, and ignored or blocked signals, have no effect."""
    reading, writing = os.pipe()
    directory = os.open("/", os.O_PATH)
    extra = os.dup(reading)
    os.set_inheritable(extra, True)
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        pid = spawn(
            [sys.executable, "-c", _TELL],
            os.environ,
            channel=reading,
            records=writing,
            output=writing,
            directory=directory,
        )
    finally:
        os.close(directory)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, former)
        os.close(extra)
        os.close(writing)
    with os.fdopen(reading) as told:
        descriptors, blocked, ignored, leads = json.load(told)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert descriptors == [0, 1, 2, 3, 4]
    assert blocked == []
    # Python itself ignores these two when it begins.
    assert ignored == 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert leads
