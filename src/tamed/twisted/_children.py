"""Noticing that processes which the reactor has spawned have ended.

Twisted listens to SIGCHLD, with a wake-up descriptor of its own. Here both belong to the event loop: uvloop
uses the signal for its own children. So each child is watched by its descriptor (pidfd_open(2)).
"""

import asyncio
import os
from functools import partial

from twisted.internet import process

__all__ = ["Children"]


class Children:
    """Watches the reactor's child processes in an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[int, int] = {}
        for pid in process.reapProcessHandlers:
            self.watch(pid)

    def watch(self, pid: int) -> None:
        """Tell Twisted when a child has ended."""
        if pid in process.reapProcessHandlers:  # it has not ended already
            descriptor = self._watched[pid] = os.pidfd_open(pid)
            self._loop.add_reader(descriptor, partial(self._ended, pid))

    def close(self) -> None:
        """Watch no more."""
        for pid in tuple(self._watched):
            self._forget(pid)

    def _ended(self, pid: int) -> None:
        self._forget(pid)
        process.reapAllProcesses()

    def _forget(self, pid: int) -> None:
        descriptor = self._watched.pop(pid)
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
