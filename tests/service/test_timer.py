import asyncio
import math
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVarTuple, cast

import pytest

from tamed.errors import ServiceFailed, ServiceMisuse
from tamed.service.timer import TimerService
from tamed.testing.clock import VirtualClockLoop

Ts = TypeVarTuple("Ts")

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run these tests on a clock of their own."""
    return "asyncio", {"loop_factory": VirtualClockLoop}


class Times(list[float]):
    """The times at which it was called."""

    def __call__(self) -> None:
        self.append(asyncio.get_running_loop().time())


async def test_a_timer_calls_at_once_and_at_every_multiple_of_its_interval() -> None:
    """The first call is made when the timer starts."""
    times = Times()
    async with TimerService(10, times):
        await asyncio.sleep(35)
    assert times == [0, 10, 20, 30]


async def test_a_timer_may_wait_before_its_first_call() -> None:
    """Without ``now`` the first call comes after one interval."""
    times = Times()
    async with TimerService(10, times, now=False):
        await asyncio.sleep(35)
    assert times == [10, 20, 30]


async def test_a_timer_does_not_drift() -> None:
    """The time that a call takes is no part of the interval."""
    times = Times()

    async def call() -> None:
        times()
        await asyncio.sleep(3)

    async with TimerService(10, call):
        await asyncio.sleep(35)
    assert times == [0, 10, 20, 30]


async def test_calls_do_not_overlap() -> None:
    """The times that pass during a call are left out, and the next one is on the beat again."""
    times = Times()

    async def call() -> None:
        times()
        await asyncio.sleep(25)

    async with TimerService(10, call):
        await asyncio.sleep(65)
    assert times == [0, 30, 60]


async def test_many_ticks_of_a_fraction_are_all_there() -> None:
    """Neither does rounding make one tick two, nor is one lost."""
    times = Times()
    async with TimerService(0.1, times, now=False):
        await asyncio.sleep(1000.05)
    assert times == pytest.approx([tick / 10 for tick in range(1, 10_001)])


class EarlyLoop(VirtualClockLoop):
    """Wakes half a millisecond early, as event loops may that count in whole ones."""

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return super().call_at(when - 0.0005, callback, *args, context=context)


def test_one_tick_is_one_call_though_the_loop_wakes_early() -> None:
    """A timer counts its ticks; the clock alone would say that the same one is to come once more."""
    times = Times()

    async def main() -> None:
        async with TimerService(1, times, now=False):
            await asyncio.sleep(4.5)

    with asyncio.Runner(loop_factory=EarlyLoop) as runner:
        runner.run(main())
    assert [round(time) for time in times] == [1, 2, 3, 4]


async def raise_error() -> None:
    """Fail."""
    raise LookupError("no such poem")


async def wait_for_cancelled() -> None:
    """Wait for something that is cancelled."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@pytest.mark.parametrize("fault", [raise_error, wait_for_cancelled])
async def test_a_call_that_raises_is_logged_and_the_timer_goes_on(
    fault: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the traceback; also when the call lets through that what it waited for was cancelled."""
    async with TimerService(10, fault, name="tick"):
        await asyncio.sleep(15)
    assert caplog.messages == ["a call of timer tick failed; the timer continues"] * 2
    assert all(record.exc_info for record in caplog.records)


async def test_a_call_that_exits_ends_the_root() -> None:
    """``SystemExit`` is not swallowed."""
    with pytest.raises(ServiceFailed, match="service timer-service failed in run: SystemExit: 2"):
        async with TimerService(10, lambda: sys.exit(2)):
            await asyncio.Event().wait()


async def test_a_call_is_cancelled_when_the_timer_stops() -> None:
    """A stopping timer does not wait for a call that waits."""
    told = []

    async def call() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async with TimerService(10, call):
        await asyncio.sleep(1)
    assert told == ["cancelled"]


@pytest.mark.parametrize("interval", [0, -1, math.inf, math.nan])
def test_an_interval_is_a_time(interval: float) -> None:
    """What is not above 0, or not finite, is refused."""
    with pytest.raises(ValueError, match="a timer needs an interval above 0 seconds, not"):
        TimerService(interval, lambda: None)


def test_a_call_is_a_function() -> None:
    """What a function returned, a coroutine too, is refused at once, and not at each interval."""

    async def report() -> None: ...

    wrong = "TimerService: the call is .*, not a function; pass the function itself, without parentheses"
    for call in (None, report()):
        with pytest.raises(ServiceMisuse, match=wrong):
            TimerService(1, cast(Any, call))
