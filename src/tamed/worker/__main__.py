"""A worker: the process that runs the application, under a supervisor.

It is run as ``python -m tamed.worker NAME NUMBER``; name and number are for those who look at
processes.

It does steps 5 to 11 of a daemon's life; the supervisor does the others. It is a fresh interpreter each time,
so the code is that of now. What the files said is that of its generation.
"""

import faulthandler
import io
import os
import socket
import sys
from typing import NoReturn

from tamed._os.fork import guard_forks
from tamed.ipc.channel import Channel, first_order
from tamed.unix.spawn import CHANNEL, RECORDS
from tamed.worker.runtime import Workplace, exit_after

__all__ = ["main", "settle_in"]


def main() -> NoReturn:
    """Run as a worker, and exit with the application's status."""
    settle_in()
    channel = Channel(socket.socket(fileno=CHANNEL), takes_descriptors=True)
    exit_after(channel, lambda: _work(channel))


def settle_in() -> None:
    """Keep our descriptors and handlers to ourselves, and let what is printed be seen when it is printed."""
    guard_forks()
    for descriptor in (CHANNEL, RECORDS):
        os.set_inheritable(descriptor, False)
    faulthandler.enable()  # after a crash, and by the watchdog, the stacks of all threads are in the log
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _work(channel: Channel) -> int:
    workplace = Workplace(first_order(channel))
    link = workplace.link(channel)
    workplace.load()
    return workplace.live(link)


if __name__ == "__main__":
    main()
