"""Errands: what the supervisor has another process do, because it takes code that it must not load itself."""

import socket
from collections.abc import Callable

from tamed.runner._channel import Channel
from tamed.runner._delivery import deliver
from tamed.runner._message import InvalidMessage, Message
from tamed.runner._reactor import Reactor
from tamed.runner._station import Station

__all__ = ["Errand", "Errands"]


class Errand:
    """One of them. ``answer`` is None if it gave none, and ``code`` its exit code, once it has ended."""

    def __init__(self, pid: int, channel: Channel, done: "Callable[[Errand], object]") -> None:
        self.pid = pid
        self.channel = channel
        self.done = done
        self.answer: Message | None = None
        self.code = 0


class Errands:
    """Runs modules as children that get one message, answer with one, and end."""

    def __init__(self, reactor: Reactor, station: Station) -> None:
        self._reactor = reactor
        self._station = station
        self._running: dict[int, Errand] = {}

    def send(self, module: str, order: Message, done: Callable[[Errand], object]) -> Errand:
        """Run a module with an order; ``done`` is called when it has ended.

        Raises OSError if the system has no room for a process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = self._station.spawn(theirs.fileno(), module)
            except BaseException:
                ours.close()
                raise
        errand = self._running[pid] = Errand(pid, Channel(ours), done)
        self._reactor.watch(errand.channel, lambda: self._hear(errand))
        try:
            errand.channel.send(order)
        except OSError:
            self._hang_up(errand)
        deliver(errand.channel, self._reactor, lambda: self._hang_up(errand))
        return errand

    def recall(self, errand: Errand) -> None:
        """End an errand; ``done`` is called all the same, when it has ended."""
        if errand.pid in self._running:
            self._station.kill(errand.pid)

    def ended(self, pid: int, code: int) -> None:
        """Hear that a child has ended, which may be an errand."""
        errand = self._running.pop(pid, None)
        if errand is not None:
            self._hear(errand)
            self._hang_up(errand)
            errand.code = code
            errand.done(errand)

    def _hear(self, errand: Errand) -> None:
        try:
            for message, _ in errand.channel.receive():
                errand.answer = message
        except (OSError, InvalidMessage):
            self._hang_up(errand)
        if errand.channel.closed:
            self._hang_up(errand)

    def _hang_up(self, errand: Errand) -> None:
        if errand.channel.fileno() >= 0:
            self._reactor.unwatch(errand.channel)
            errand.channel.close()
