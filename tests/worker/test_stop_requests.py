import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tamed.worker.life import StopRequests

pytestmark = pytest.mark.anyio


class Heard:
    """Records the signals that requested a stop, and those that would have ended the process."""

    def __init__(self) -> None:
        self.stops: list[signal.Signals] = []
        self.deaths: list[tuple[int, int]] = []
        self.stopped = asyncio.Event()

    def stop(self, number: signal.Signals) -> None:
        self.stops.append(number)
        self.stopped.set()

    def kill(self, pid: int, number: int) -> None:
        assert signal.getsignal(number) is signal.SIG_DFL
        self.deaths.append((pid, number))

    @contextmanager
    def listening(self) -> Iterator[StopRequests]:
        """Listen, as a runner does."""
        requests = StopRequests(self.kill)
        requests.stop = self.stop
        with requests:
            yield requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_first_signal_asks_to_stop_from_within_the_loop(number: signal.Signals) -> None:
    """The handler itself does not act, because it may have interrupted any code."""
    heard = Heard()
    with heard.listening():
        signal.raise_signal(number)
        assert heard.stops == []
        await heard.stopped.wait()
        assert (heard.stops, heard.deaths) == ([number], [])


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_after_that_ends_the_process_without_the_loop(first: signal.Signals) -> None:
    """The default action ends it, so that the parent sees the signal."""
    heard = Heard()
    with heard.listening():
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)
        assert heard.deaths == [(os.getpid(), signal.SIGINT)]


async def test_a_second_term_is_not_counted() -> None:
    """A service manager sends TERM to every process of a service, also to those that already stop."""
    heard = Heard()
    with heard.listening():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        await heard.stopped.wait()
        assert (heard.stops, heard.deaths) == ([signal.SIGTERM], [])


async def test_what_a_signal_does_may_be_replaced() -> None:
    """The loop uses the current reaction when it handles the signal."""
    first, second = Heard(), Heard()
    with first.listening() as requests:
        requests.stop = second.stop
        signal.raise_signal(signal.SIGTERM)
        await second.stopped.wait()
    assert (first.stops, second.stops) == ([], [signal.SIGTERM])


async def test_a_hangup_that_is_ignored_stays_so() -> None:
    """nohup(1) sets this, so that a process outlives its terminal."""
    heard = Heard()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heard.listening():
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
            await heard.stopped.wait()
        assert heard.stops == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_the_handlers_are_what_they_were_before_and_after() -> None:
    """QUIT has its default action meanwhile, even if a shell had set it to ignore."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(number) for number in numbers]
        with Heard().listening():
            assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
            assert signal.getsignal(signal.SIGINT) not in handlers
        assert [signal.getsignal(number) for number in numbers] == handlers
    finally:
        signal.signal(signal.SIGQUIT, before)
