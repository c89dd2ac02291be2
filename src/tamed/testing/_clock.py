"""An event loop on which time passes at once, for tests of services that wait."""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["VirtualClockLoop"]

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


class _ClockSelector(selectors.DefaultSelector):
    """A selector that moves a clock where others sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events only if there is no timer to wait for, or a thread to hear from."""
        if timeout is None or (timeout > 0 and self.threads):
            return super().select(None)
        events = super().select(0)
        if not events and timeout > 0:
            self.now += timeout
        return events
