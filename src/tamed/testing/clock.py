"""Event loops on which time passes at once, or when a test says so, for tests of services that wait."""

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
    """An event loop that never sleeps: when everything waits for a time, that time has come.

    Its clock begins at 0 and is moved on to the next timer as soon as there is nothing else to do, so that
    timers, deadlines and backoffs are tested in no time and to the exact second::

        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.run(main())

    or, with anyio's pytest plugin, in a module of tests::

        @pytest.fixture
        def anyio_backend():
            return "asyncio", {"loop_factory": VirtualClockLoop}

    The clock stands still while a function runs in an executor. It does not know of other processes: a
    timer does not wait for what they send.
    """

    def __init__(self) -> None:
        self._selector_with_clock = _ClockSelector()
        super().__init__(self._selector_with_clock)

    def time(self) -> float:
        """Return the seconds that have passed on this loop's clock."""
        return self._selector_with_clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function in a thread, as every event loop does; the clock stands still meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        selector = self._selector_with_clock
        selector.threads += 1

        def is_done(_: asyncio.Future[T]) -> None:
            selector.threads -= 1

        future.add_done_callback(is_done)
        return future

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """Wait for the threads, as every event loop does at its end; the clock stands still meanwhile."""
        self._selector_with_clock.threads += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._selector_with_clock.threads -= 1


class SteppedClockLoop(VirtualClockLoop):
    """An event loop whose time passes only in `advance`; whatever else it waits for, it really waits for.

    It is for tests that have both: real sockets, which take their time, and timers that must not go off
    meanwhile::

        async with running(Clock()) as clock:
            await asyncio.get_running_loop().advance(60)
            ...

    A deadline that nobody advances to never passes, so give such a test one outside of the loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self._selector_with_clock.limit = 0.0

    async def advance(self, seconds: float) -> None:
        """Let so many seconds pass, and whatever is due in them happen, each at its own time.

        When this returns, all that they have brought about is done, as far as it waits for nothing else.
        """
        self._selector_with_clock.limit = self.time() + seconds
        await asyncio.sleep(seconds)
        rest = self.create_future()
        self._selector_with_clock.at_rest = lambda: rest.set_result(None)
        await rest


class _ClockSelector(selectors.DefaultSelector):
    """A selector that moves a clock where others sleep, up to a limit."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limit = math.inf
        self.threads = 0
        self.at_rest: Callable[[], None] | None = None  # called once, when there is nothing to do

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events only if there is no timer to wait for, or its time may not come yet."""
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
            told, self.at_rest = self.at_rest, None
            told()
        return events
