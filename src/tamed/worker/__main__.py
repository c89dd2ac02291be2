"""A worker: the process that runs the application, under a supervisor.

Its command is ``python -m tamed.worker NAME NUMBER``; name and number are only shown in process listings.

It does steps 5 to 11 of a daemon's life; the supervisor does the others. Each worker is a new interpreter, so
it loads the current code. Its settings are those of its generation.
"""

import socket
from typing import NoReturn

from tamed.ipc.channel import Channel, first_order
from tamed.unix.spawn import CHANNEL
from tamed.worker.runtime import WorkerRuntime, exit_after, set_up_process

__all__ = ["main"]


def main() -> NoReturn:
    """Run as a worker, and exit with the application's status."""
    set_up_process()
    channel = Channel(socket.socket(fileno=CHANNEL), takes_descriptors=True)
    exit_after(channel, lambda: _work(channel))


def _work(channel: Channel) -> int:
    runtime = WorkerRuntime(first_order(channel))
    link = runtime.link(channel)
    runtime.load()
    return runtime.live(link)


if __name__ == "__main__":
    main()
