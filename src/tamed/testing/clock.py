"""Event loops with a virtual clock, for tests of services that wait for time to pass."""

import asyncio
import math
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["SteppedClockLoop", "VirtualClockLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps: when only timers are left, its clock jumps to the next one.

    The clock begins at 0, and jumps as soon as there is nothing else to do. So timers, deadlines and backoffs
    are tested without waiting, and to the exact second::

        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(main())

    or, with anyio's pytest plugin, in a module of tests::

        @pytest.fixture
        def anyio_backend():
            return "asyncio", {"loop_factory": VirtualClockLoop}

    The clock stops while a function runs in an executor. It does not wait for other processes: a timer can
    expire before their data arrives.
    """

    def __init__(self) -> None:
        self._selector_with_clock = _ClockSelector()
        super().__init__(self._selector_with_clock)

    def time(self) -> float:
        """Return the time of this loop's clock, in seconds."""
        return self._selector_with_clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function in a thread, as every event loop does; the clock stops until it returns."""
        future = super().run_in_executor(executor, func, *args)
        selector = self._selector_with_clock
        selector.threads += 1

        def is_done(_: asyncio.Future[T]) -> None:
            selector.threads -= 1

        future.add_done_callback(is_done)
        return future

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """Wait for the threads, as every event loop does at its end; the clock stops until they end."""
        self._selector_with_clock.threads += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._selector_with_clock.threads -= 1


class SteppedClockLoop(VirtualClockLoop):
    """An event loop whose clock moves only in `advance`; for everything except timers it waits in real time.

    It is for tests with real sockets, which take real time, and with timers that must not expire during it::

        async with running(Clock()) as clock:
            await asyncio.get_running_loop().advance(60)
            ...

    A deadline passes only if the test advances to it, so give such a test a deadline outside the loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self._selector_with_clock.limit = 0.0

    async def advance(self, seconds: float) -> None:
        """Move the clock on by this many seconds, and run each timer that is due, at its own time.

        When this returns, everything that the timers started is done, or waits for an event or a later timer.
        """
        self._selector_with_clock.limit = self.time() + seconds
        await asyncio.sleep(seconds)
        rest = self.create_future()
        self._selector_with_clock.at_rest = lambda: rest.set_result(None)
        await rest


class _ClockSelector(selectors.DefaultSelector):
    """A selector that moves a clock instead of sleeping, up to a limit."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limit = math.inf
        self.threads = 0
        self.at_rest: Callable[[], None] | None = None  # called once, when nothing is left to do

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events only if there is no timer, or if the clock must not move yet."""
        if timeout is None or (timeout > 0 and (self.threads or self.now >= self.limit)):
            return self._wait()
        events = super().select(0)
        if not events and timeout > 0:
            self.now = min(self.now + timeout, self.limit)
        return events

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        if self.at_rest is None or self.threads:
            return super().select(None)
        events = super().select(0)
        if not events:
            callback, self.at_rest = self.at_rest, None
            callback()
        return events
