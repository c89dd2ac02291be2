"""Errands: what the supervisor has another process do, because it takes code that it must not load itself.

Such a process runs code of others, which may hang. So each has a deadline, after which it is killed, with its
process group.
"""

import socket
from collections.abc import Callable

from tamed.ipc.channel import Channel
from tamed.ipc.message import InvalidMessage, Message
from tamed.supervisor.loop import Reactor, Timer, deliver
from tamed.supervisor.platform import Station

__all__ = ["Errand", "Errands"]


class Errand:
    """One of them. ``answer`` is None if it gave none, and ``code`` its exit code, once it has ended.

    ``timed_out`` says that it did not end by its deadline and was killed.
    """

    def __init__(self, pid: int, channel: Channel, done: "Callable[[Errand], object]") -> None:
        self.pid = pid
        self.channel = channel
        self.done = done
        self.answer: Message | None = None
        self.code = 0
        self.timed_out = False
        self.deadline: Timer | None = None


class Errands:
    """Runs modules as children that get one message, answer with one, and end."""

    def __init__(self, reactor: Reactor, station: Station) -> None:
        self._reactor = reactor
        self._station = station
        self._running: dict[int, Errand] = {}

    def send(
        self, module: str, order: Message, done: Callable[[Errand], object], *, timeout: float | None
    ) -> Errand:
        """Run a module with an order; ``done`` is called when it has ended, or has not within ``timeout``.

        The timeout is in seconds, None for a process that is to stay. Raises OSError if the system has no
        room for a process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = self._station.spawn(theirs.fileno(), module)
            except BaseException:
                ours.close()
                raise
        errand = self._running[pid] = Errand(pid, Channel(ours), done)
        if timeout is not None:
            errand.deadline = self._reactor.later(timeout, lambda: self._time_out(errand))
        self._reactor.watch(errand.channel, lambda: self._hear(errand))
        try:
            errand.channel.send(order)
        except OSError:
            self._hang_up(errand)
        deliver(errand.channel, self._reactor, lambda: self._hang_up(errand))
        return errand

    @property
    def is_busy(self) -> bool:
        """Whether one of them has not ended yet."""
        return bool(self._running)

    def end(self) -> None:
        """Kill all of them."""
        for errand in self._running.values():
            self.recall(errand)

    def export(self) -> list[int]:
        """Return the pids of all, as data. The next program has no use for them."""
        return list(self._running)

    def resume(self, pids: list[int]) -> None:
        """End what the program before has left behind."""
        for pid in pids:
            ours, theirs = socket.socketpair()
            theirs.close()
            errand = self._running[pid] = Errand(pid, Channel(ours), lambda _: None)
            errand.channel.close()
            self.recall(errand)

    def recall(self, errand: Errand) -> None:
        """Kill an errand's process group; ``done`` is called all the same, when it has ended."""
        if errand.pid in self._running:
            self._station.kill(errand.pid)

    def ended(self, pid: int, code: int) -> None:
        """Hear that a child has ended, which may be an errand."""
        errand = self._running.pop(pid, None)
        if errand is not None:
            self._hear(errand)
            self._hang_up(errand)
            errand.code = code
            if errand.deadline is not None:
                errand.deadline.cancel()
            if not errand.timed_out:
                errand.done(errand)

    def _time_out(self, errand: Errand) -> None:
        """Report it at once: a process that cannot even be killed must hold up nobody."""
        errand.timed_out = True
        errand.answer = None
        self._hang_up(errand)
        self.recall(errand)
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
