"""The supervisor's event loop: a selector, timers and signals, and nothing else of asyncio.

Signals arrive on a wake-up descriptor (signal.set_wakeup_fd): the interpreter's C handler writes the number
of the signal to it, and the loop reads it. The Python handlers do nothing, so they cannot interrupt other
code.
"""

import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from tamed.ipc.channel import Channel
from tamed.ipc.message import InvalidMessage, Message

__all__ = ["NO_TIMER", "Peer", "Reactor", "Timer"]


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


class Timer:
    """A scheduled call at a time of the reactor's clock; it can be cancelled."""

    __slots__ = ("call", "cancelled")

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        """Cancel the call, and free what it refers to. Idempotent."""
        self.cancelled = True
        self.call = _nothing  # the timer itself stays in the reactor until its time, which may be hours away


def _nothing() -> None: ...


NO_TIMER = Timer(_nothing)
"""A timer that never expires, for an attribute that has none yet."""


class Reactor:
    """Calls back when a descriptor is readable or writable, when a timer expires, and when a signal arrives.

    An exception of a callback ends `run`. ``on_signal`` is called with each held signal. ``clock`` is in
    seconds and monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._selector = selectors.DefaultSelector()
        self._writers: dict[int, Callable[[], object]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self.on_signal: Callable[[signal.Signals], object] = lambda _: None
        self._is_stopped = False
        self._wakeup: tuple[int, int] | None = None

    def watch(self, source: _HasFileno, call: Callable[[], object]) -> None:
        """Call whenever this descriptor is readable."""
        self._selector.register(source.fileno(), selectors.EVENT_READ, call)

    def unwatch(self, source: _HasFileno) -> None:
        """Stop calling back. Must be called before the descriptor is closed."""
        self._selector.unregister(source.fileno())
        self._writers.pop(source.fileno(), None)

    def once_writable(self, source: _HasFileno, call: Callable[[], object]) -> None:
        """Call once, when a watched source is writable."""
        key = self._selector.get_key(source.fileno())
        self._selector.modify(key.fd, selectors.EVENT_READ | selectors.EVENT_WRITE, key.data)
        self._writers[key.fd] = call

    def later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call once, after so many seconds."""
        timer = Timer(call)
        heapq.heappush(self._timers, (self.clock() + seconds, next(self._order), timer))
        return timer

    def hold_signals(self, numbers: Iterable[signal.Signals]) -> None:
        """From now on, pass these signals to ``on_signal``. May be called once."""
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        self._wakeup = reading, writing
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in numbers:  # only signals that have a handler are written to the wake-up descriptor
            signal.signal(number, lambda *_: None)

        def arrived() -> None:
            for number in self.take_signals():
                self.on_signal(signal.Signals(number))

        self._selector.register(reading, selectors.EVENT_READ, arrived)

    def take_signals(self) -> bytes:
        """Take the signals that have arrived and were not passed to ``on_signal``."""
        try:
            return b"" if self._wakeup is None else os.read(self._wakeup[0], 4096)
        except BlockingIOError:
            return b""

    def return_signals(self, taken: bytes) -> None:
        """Deliver taken signals again, including those that the previous program of this process took."""
        if self._wakeup is not None and taken:
            os.write(self._wakeup[1], taken)

    def run(self) -> None:
        """Call back until `stop` is called; return at once if it was called before."""
        while not self._is_stopped:
            self.turn(self._until_the_next_timer())

    def turn(self, timeout: float | None) -> None:
        """Wait for events, up to so many seconds (None: without limit), and make the calls that are due."""
        for key, events in self._selector.select(timeout):
            # An earlier callback of this round may have closed this one's descriptor.
            if self._selector.get_map().get(key.fd) is not key:
                continue
            if events & selectors.EVENT_WRITE:
                self._selector.modify(key.fd, selectors.EVENT_READ, key.data)
                self._writers.pop(key.fd)()
            else:
                key.data()
        self._call_due()

    def stop(self) -> None:
        """Let `run` return after the current callback; it cannot be run again."""
        self._is_stopped = True

    def close(self) -> None:
        """Release the signals and the descriptors."""
        self._selector.close()
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            for end in self._wakeup:
                os.close(end)

    def _until_the_next_timer(self) -> float | None:
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self.clock()) if self._timers else None

    def _call_due(self) -> None:
        now = self.clock()
        while not self._is_stopped and self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                timer.call()


class Peer:
    """A child at the other end of a channel; ``handle`` is called with each of its messages.

    The channel is closed when the child has closed its end, does not read, or sends an invalid message, for
    which ``handle`` raises InvalidMessage; ``invalid`` is then called with it before, and ``closed`` after
    that, once. The end of the child is handled where children are reaped.
    """

    def __init__(
        self,
        channel: Channel,
        reactor: Reactor,
        handle: Callable[[Message], object],
        invalid: Callable[[InvalidMessage], object] = lambda _: None,
        closed: Callable[[], object] = lambda: None,
    ) -> None:
        self.channel = channel
        self._reactor = reactor
        self._handle = handle
        self._invalid = invalid
        self._closed = closed
        if not channel.closed:
            reactor.watch(channel, self.receive)
            self._deliver()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message with copies of descriptors, now or as soon as possible. Raises as `Channel.send`."""
        self.channel.send(message, descriptors)
        self._deliver()

    def _deliver(self) -> None:
        """Send the queued messages, now or as soon as the socket is writable."""
        try:
            if not self.channel.closed and not self.channel.flush():
                self._reactor.once_writable(self.channel, self._deliver)
        except OSError:
            self.close()

    def receive(self) -> None:
        """Handle the messages that have arrived. May be called repeatedly, even after `close`."""
        try:
            for message, _ in self.channel.receive():
                self._handle(message)
            self._deliver()  # one that no longer reads is noticed here, too
        except InvalidMessage as error:
            self._invalid(error)
            self.close()
        except OSError:
            self.close()
        if self.channel.closed:
            self.close()

    def close(self) -> None:
        """Close the channel. Idempotent."""
        if self.channel.fileno() >= 0:
            self._reactor.unwatch(self.channel)
            self.channel.close()
            self._closed()
