"""A template: a process that loads the application once, and forks the workers of a generation from it.

With ``--preload``, it is run as ``python -m tamed.worker.template NAME``. The common part of the workers is
then in memory once.

A forked process has only the thread that forked. If an application starts threads while it is loaded, the
locks of these threads would stay locked in its workers, so such an application is refused.

Workers are children of the supervisor, not of the template: a process in between, which ends at once, forks
them, and the supervisor adopts them as a subreaper (prctl(2)).

A forked worker keeps the `own`ed objects of its template (`tamed._os.fork`), and puts its own descriptors in
the place of the template's. It has no other descriptor of ours.
"""

import errno
import gc
import os
import select
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tamed._os.fork import fork_own
from tamed.errors import ConfigurationError
from tamed.ipc.channel import Channel, first_order
from tamed.net.endpoint import Endpoint
from tamed.net.listen import Gate, Listener
from tamed.unix.spawn import CHANNEL, RECORDS
from tamed.worker.runtime import WorkerRuntime, exit_after, set_up_process

__all__ = ["main"]

_THREADS = Path("/proc/self/task")  # proc(5)


class _NoSource:
    """The source of sockets in a template, in which no server may listen."""

    async def listen(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        return self.listen_now(endpoint, kind)

    def listen_now(self, endpoint: Endpoint, kind: socket.SocketKind = socket.SOCK_STREAM) -> Listener:
        why = "the application listens while it is loaded, before there are workers"
        raise ConfigurationError(f"cannot listen on {endpoint}", why, "run it without --preload")


def main() -> NoReturn:
    """Fork workers as the supervisor orders, until it closes the channel."""
    set_up_process()
    channel = Channel(socket.socket(fileno=CHANNEL), takes_descriptors=True)
    exit_after(channel, lambda: _work(channel))


def _work(channel: Channel) -> int:
    runtime = WorkerRuntime(first_order(channel))
    runtime.serve_from(_NoSource(), Gate())
    runtime.load()
    _refuse_threads()
    gc.collect()
    gc.freeze()  # so that a collection in a worker does not write to, and so copy, shared memory
    channel.send({"loaded": True})
    while not channel.closed:
        select.select([channel], [], [])
        for message, descriptors in channel.receive():
            match message:
                case {"fork": True}:
                    try:
                        pid = _fork()
                    except OSError as error:
                        channel.send({"forked": 0, "errno": error.errno})
                    else:
                        if pid == 0:
                            _put_in_place(descriptors, channel)
                            runtime.identify(first_order(channel))
                            return runtime.live(runtime.link(channel))
                        channel.send({"forked": pid})
                    _close(descriptors)
                case {"drop": True}:
                    runtime.drop_privileges()
    return 0


def _refuse_threads() -> None:
    names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    count = len(list(_THREADS.iterdir())) - 1
    if names or count:
        why = f"the application has started threads while it was loaded ({', '.join(names) or count})"
        remedy = "start them in a service's start hook, or run it without --preload"
        raise ConfigurationError("--preload", why, remedy)


def _fork() -> int:
    """Fork a worker and return its pid, or 0 in the worker. Raises OSError if the system cannot fork."""
    reading, writing = os.pipe()
    try:
        between = fork_own()
    except OSError:
        _close((reading, writing))
        raise
    if between == 0:
        pid = _fork_between(writing)
        if pid == 0:
            _close((reading, writing))
            return 0
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as report:
        pid = int(report.read() or -errno.EAGAIN)
    os.waitpid(between, 0)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return pid


def _fork_between(writing: int) -> int:
    """Fork the worker in the process in between; report its pid, or a negative errno."""
    try:
        pid = fork_own()
    except OSError as error:
        pid = -(error.errno or errno.EAGAIN)
    if pid:
        os.write(writing, b"%d" % pid)
    return pid


def _put_in_place(descriptors: Sequence[int], channel: Channel) -> None:
    """Replace the template's descriptors with the worker's own, under the same numbers."""
    theirs, records, output = descriptors
    os.setsid()
    for descriptor, number in ((theirs, CHANNEL), (records, RECORDS), (output, 1), (output, 2)):
        os.dup2(descriptor, number, inheritable=number in (1, 2))
    _close(descriptors)
    os.set_blocking(CHANNEL, False)
    os.set_blocking(RECORDS, False)
    channel.forget()


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


if __name__ == "__main__":
    main()
