"""Helper processes: they run code that the supervisor must not load.

It may be third-party code, and may hang. So a helper has a deadline, after which it is killed with its
process group.
"""

from collections.abc import Callable

from tamed.ipc.channel import Channel
from tamed.ipc.message import Message
from tamed.supervisor.generation import Generation
from tamed.supervisor.loop import NO_TIMER, Peer, Reactor
from tamed.supervisor.platform import Platform
from tamed.supervisor.templates import ForkRequest, Templates

__all__ = ["HelperProcess", "HelperProcesses"]


class HelperProcess:
    """One helper: a process that runs a module.

    ``answer`` is None without an answer; ``code`` is its exit code, once it has ended. ``timed_out`` means
    that it missed its deadline and was killed, ``refused`` that the system could not start it. ``pid`` is 0
    until it has been started.
    """

    def __init__(self, module: str, order: Message, done: "Callable[[HelperProcess], object]") -> None:
        self.module = module
        self.order = order
        self.done = done
        self.pid = 0
        self.peer: Peer | None = None
        self.answer: Message | None = None
        self.code = 0
        self.timed_out = False
        self.refused: OSError | None = None
        self.deadline = NO_TIMER

    def begin(self, pid: int, channel: Channel, reactor: Reactor) -> None:
        """Send the order to the process that was started."""
        self.pid = pid
        self.peer = Peer(channel, reactor, self._handle)
        try:
            self.peer.send(self.order)
        except OSError:
            self.peer.close()

    def _handle(self, message: Message) -> None:
        self.answer = message

    def finish(self, code: int) -> None:
        """Read its answer, and report its end."""
        self.code = code
        if self.peer is not None:
            self.peer.receive()
            self.peer.close()
        self.deadline.cancel()
        if not self.timed_out:
            self.done(self)

    def refuse(self, error: OSError) -> None:
        """Report that the system refused to start it."""
        self.refused = error
        self.finish(0)

    def time_out(self) -> None:
        """Report that it has not ended in time, and close its channel."""
        self.timed_out = True
        self.answer = None
        if self.peer is not None:
            self.peer.close()
        self.done(self)


class HelperProcesses:
    """Runs modules as children that get one message, answer with one, and end."""

    def __init__(self, platform: Platform) -> None:
        self._reactor = platform.reactor
        self._platform = platform
        self._running: dict[int, HelperProcess] = {}
        self._requested: dict[HelperProcess, ForkRequest] = {}

    def send(
        self, module: str, order: Message, done: Callable[[HelperProcess], object], *, timeout: float | None
    ) -> HelperProcess:
        """Run a module with an order; ``done`` is called when it has ended, or when ``timeout`` has passed.

        The timeout is in seconds, None for no limit. Raises OSError if the system cannot start a process.
        """
        helper = HelperProcess(module, order, done)
        self._spawn(helper)
        self._limit(helper, timeout)
        return helper

    def fork(
        self,
        templates: Templates,
        generation: Generation,
        module: str,
        order: Message,
        done: Callable[[HelperProcess], object],
        *,
        timeout: float,
    ) -> HelperProcess:
        """Do the same as `send`, in a process forked by the template of a generation, or else in a new one.

        The module's ``main`` is called with the channel.
        """
        helper = HelperProcess(module, order, done)
        self._requested[helper] = templates.fork(
            generation,
            {"module": module},
            forked=lambda pid, channel: self._forked(helper, pid, channel),
            refused=lambda _: self._refused(helper),
            failed=lambda *_: self._refused(helper),
        )
        self._limit(helper, timeout)
        return helper

    def _forked(self, helper: HelperProcess, pid: int, channel: Channel) -> None:
        del self._requested[helper]
        self._running[pid] = helper
        helper.begin(pid, channel, self._reactor)

    def _refused(self, helper: HelperProcess) -> None:
        del self._requested[helper]
        try:
            self._spawn(helper)
        except OSError as error:
            helper.refuse(error)

    def _spawn(self, helper: HelperProcess) -> None:
        with Channel.to_child() as (channel, theirs):
            pid = self._platform.spawn(theirs, helper.module)
        self._running[pid] = helper
        helper.begin(pid, channel, self._reactor)

    def _limit(self, helper: HelperProcess, timeout: float | None) -> None:
        if timeout is not None:
            helper.deadline = self._reactor.later(timeout, lambda: self._time_out(helper))

    def end(self) -> None:
        """Kill all helpers."""
        for helper in [*self._running.values(), *self._requested]:
            self.kill(helper)

    def export(self) -> list[int]:
        """Return the pids of all, as data. The next program ends them."""
        return list(self._running)

    def resume(self, pids: list[int]) -> None:
        """End the helpers of the previous program."""
        for pid in pids:
            self._platform.kill(pid)

    def kill(self, helper: HelperProcess) -> None:
        """Kill a helper's process group. ``done`` is still called when it has ended, if it was started."""
        if helper.pid in self._running:
            self._platform.kill(helper.pid)
        elif helper in self._requested:
            self._requested.pop(helper).cancel()
            helper.deadline.cancel()

    def ended(self, pid: int, code: int) -> None:
        """Handle the end of a child, which may be a helper."""
        helper = self._running.pop(pid, None)
        if helper is not None:
            helper.finish(code)

    def _time_out(self, helper: HelperProcess) -> None:
        """Report the timeout at once: callers must not wait for a process that cannot be killed."""
        self.kill(helper)
        helper.time_out()
