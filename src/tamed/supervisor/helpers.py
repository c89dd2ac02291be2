"""Helper processes: they do what takes code that the supervisor must not load itself.

Such a process runs code of others, which may hang. So each has a deadline, after which it is killed, with its
process group.
"""

import socket
from collections.abc import Callable

from tamed.ipc.channel import Channel
from tamed.ipc.message import InvalidMessage, Message
from tamed.supervisor.loop import Reactor, Timer, deliver
from tamed.supervisor.platform import Platform

__all__ = ["HelperProcess", "HelperProcesses"]


class HelperProcess:
    """One of them. ``answer`` is None if it gave none, and ``code`` its exit code, once it has ended.

    ``timed_out`` says that it did not end by its deadline and was killed.
    """

    def __init__(self, pid: int, channel: Channel, done: "Callable[[HelperProcess], object]") -> None:
        self.pid = pid
        self.channel = channel
        self.done = done
        self.answer: Message | None = None
        self.code = 0
        self.timed_out = False
        self.deadline: Timer | None = None


class HelperProcesses:
    """Runs modules as children that get one message, answer with one, and end."""

    def __init__(self, reactor: Reactor, platform: Platform) -> None:
        self._reactor = reactor
        self._platform = platform
        self._running: dict[int, HelperProcess] = {}

    def send(
        self, module: str, order: Message, done: Callable[[HelperProcess], object], *, timeout: float | None
    ) -> HelperProcess:
        """Run a module with an order; ``done`` is called when it has ended, or has not within ``timeout``.

        The timeout is in seconds, None for a process that is to stay. Raises OSError if the system has no
        room for a process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = self._platform.spawn(theirs.fileno(), module)
            except BaseException:
                ours.close()
                raise
        helper = self._running[pid] = HelperProcess(pid, Channel(ours), done)
        if timeout is not None:
            helper.deadline = self._reactor.later(timeout, lambda: self._time_out(helper))
        self._reactor.watch(helper.channel, lambda: self._receive(helper))
        try:
            helper.channel.send(order)
        except OSError:
            self._close(helper)
        deliver(helper.channel, self._reactor, lambda: self._close(helper))
        return helper

    @property
    def is_busy(self) -> bool:
        """Whether one of them has not ended yet."""
        return bool(self._running)

    def end(self) -> None:
        """Kill all of them."""
        for helper in self._running.values():
            self.kill(helper)

    def export(self) -> list[int]:
        """Return the pids of all, as data. The next program has no use for them."""
        return list(self._running)

    def resume(self, pids: list[int]) -> None:
        """End what the program before has left behind."""
        for pid in pids:
            ours, theirs = socket.socketpair()
            theirs.close()
            helper = self._running[pid] = HelperProcess(pid, Channel(ours), lambda _: None)
            helper.channel.close()
            self.kill(helper)

    def kill(self, helper: HelperProcess) -> None:
        """Kill a helper's process group; ``done`` is called all the same, when it has ended."""
        if helper.pid in self._running:
            self._platform.kill(helper.pid)

    def ended(self, pid: int, code: int) -> None:
        """Take note that a child has ended, which may be a helper."""
        helper = self._running.pop(pid, None)
        if helper is not None:
            self._receive(helper)
            self._close(helper)
            helper.code = code
            if helper.deadline is not None:
                helper.deadline.cancel()
            if not helper.timed_out:
                helper.done(helper)

    def _time_out(self, helper: HelperProcess) -> None:
        """Report it at once: a process that cannot even be killed must hold up nobody."""
        helper.timed_out = True
        helper.answer = None
        self._close(helper)
        self.kill(helper)
        helper.done(helper)

    def _receive(self, helper: HelperProcess) -> None:
        try:
            for message, _ in helper.channel.receive():
                helper.answer = message
        except (OSError, InvalidMessage):
            self._close(helper)
        if helper.channel.closed:
            self._close(helper)

    def _close(self, helper: HelperProcess) -> None:
        if helper.channel.fileno() >= 0:
            self._reactor.unwatch(helper.channel)
            helper.channel.close()
