"""The children of this process: which there are, and waiting for what becomes of them."""

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["ChildWatch", "children", "reap", "send"]


def children() -> set[int]:
    """Return the pids of this process's children, adopted ones too; none where there is no ``/proc``.

    A child's pid is not given to another process before it is reaped, so they can be signalled safely.
    """
    me = os.getpid()
    return {pid for pid in _processes() if _parent_of(pid) == me}


def send(pid: int, number: int) -> None:
    """Send a signal to a child that may be gone, or not be ours to signal (a set-user-ID program)."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def reap() -> Iterator[tuple[int, int]]:
    """Yield pid and wait status of each child that has ended; raise ChildProcessError if none is left."""
    while (ended := os.waitpid(-1, os.WNOHANG))[0]:
        yield ended


class ChildWatch:
    """Lets a process wait until a child of it ends, or one of some sockets can be read."""

    def __init__(self) -> None:
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up descriptor needs a handler

    def wait(self, sock: socket.socket | None, seconds: float | None) -> bool:
        """Wait for that many seconds at most; return whether the socket can be read."""
        watched = [self._woken] if sock is None else [self._woken, sock]
        readable, _, _ = select.select(watched, [], [], seconds)
        if self._woken in readable:
            self._woken.recv(4096)
        return sock in readable

    def close(self) -> None:
        """Give up watching, in a fork that has children of its own."""
        signal.set_wakeup_fd(-1)
        self._woken.close()
        self._waker.close()


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - a thousand Paths are slow
    except OSError:
        return []


def _parent_of(pid: int) -> int:
    """Read a process's parent from proc_pid_stat(5); 0 if the process is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[1])
