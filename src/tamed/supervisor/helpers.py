"""Helper processes: they run code that the supervisor must not load.

Such code may be of others, and may hang. So a helper has a deadline, after which it is killed with its
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
    """One helper. ``answer`` is None if it gave none; ``code`` is its exit code, once it has ended.

    ``timed_out`` means that it did not end by its deadline and was killed.
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
        """Run a module with an order; ``done`` is called when it has ended, or when ``timeout`` has passed.

        The timeout is in seconds, None for no limit. Raises OSError if the system cannot start a process.
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
        """Whether any helper runs."""
        return bool(self._running)

    def end(self) -> None:
        """Kill all of them."""
        for helper in self._running.values():
            self.kill(helper)

    def export(self) -> list[int]:
        """Return the pids of all, as data. The next program ends them."""
        return list(self._running)

    def resume(self, pids: list[int]) -> None:
        """End the helpers of the previous program."""
        for pid in pids:
            ours, theirs = socket.socketpair()
            theirs.close()
            helper = self._running[pid] = HelperProcess(pid, Channel(ours), lambda _: None)
            helper.channel.close()
            self.kill(helper)

    def kill(self, helper: HelperProcess) -> None:
        """Kill a helper's process group; ``done`` is still called when it has ended."""
        if helper.pid in self._running:
            self._platform.kill(helper.pid)

    def ended(self, pid: int, code: int) -> None:
        """Handle the end of a child, which may be a helper."""
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
        """Report it at once: callers must not wait for a process that cannot be killed."""
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
