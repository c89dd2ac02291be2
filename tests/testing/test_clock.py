import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from tamed.errors import ServiceFailed
from tamed.service.restart import Backoff, Restart
from tamed.service.service import Service
from tamed.service.timer import TimerService
from tamed.testing.clock import SteppedClockLoop, VirtualClockLoop

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


def test_a_sleep_takes_no_time_and_is_exact() -> None:
    """Days pass on the loop's clock in a moment."""

    async def main() -> float:
        await asyncio.sleep(3 * 24 * 3600)
        return asyncio.get_running_loop().time()

    begun = time.monotonic()
    assert run(main()) == 3 * 24 * 3600
    assert time.monotonic() - begun < 5


def test_timers_fire_in_the_order_of_their_times() -> None:
    """What is to come first comes first, and each sees its own time."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        for delay in (0.3, 0.1, 0.2):
            loop.call_later(delay, lambda: seen.append(loop.time()))
        await asyncio.sleep(1)
        return seen

    assert run(main()) == [0.1, 0.2, 0.3]


def test_a_deadline_passes_when_nothing_else_is_to_do() -> None:
    """What waits for ever is cut at its deadline at once."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 60)
        return asyncio.get_running_loop().time()

    assert run(main()) == 60


def test_work_that_does_not_wait_takes_no_time() -> None:
    """The clock stands still while there is something to do."""

    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run(main()) == 0


def test_the_clock_stands_still_while_a_thread_works() -> None:
    """A deadline does not cut a thread that is about to answer."""
    told = threading.Event()

    async def main() -> tuple[bool, float]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(0.001):
            work = loop.run_in_executor(None, told.wait)
            await asyncio.sleep(0)
            told.set()
            return await work, loop.time()

    assert run(main()) == (True, 0)


def test_connections_work() -> None:
    """Within a process, what one end sends has arrived before the clock moves on."""

    async def main() -> tuple[bytes, float]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, asyncio.timeout(1):
            host, port = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"a poem\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return line, asyncio.get_running_loop().time()

    assert run(main()) == (b"a poem\n", 0)


def stepped(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a clock that stands still until it is advanced."""
    with asyncio.Runner(loop_factory=SteppedClockLoop) as runner:
        return runner.run(main)


async def advance(seconds: float) -> None:
    """Let time pass on the stepped clock that this runs on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedClockLoop)
    await loop.advance(seconds)


def test_a_stepped_clock_stands_still_while_there_is_something_to_wait_for() -> None:
    """A thread that takes its time outlasts no deadline."""

    async def main() -> float:
        late = asyncio.Event()
        loop = asyncio.get_running_loop()
        timer = threading.Timer(0.05, loop.call_soon_threadsafe, [late.set])
        timer.start()
        async with asyncio.timeout(0.001):
            await late.wait()
        return loop.time()

    assert stepped(main()) == 0


def test_what_is_due_happens_each_at_its_own_time() -> None:
    """In the order of the times, and nothing after them."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        async with TimerService(20, lambda: seen.append(loop.time())):
            await advance(50)
            assert seen == [0, 20, 40]
            await advance(10)
        assert loop.time() == 60
        return seen

    assert stepped(main()) == [0, 20, 40, 60]


def test_a_restart_policy_is_tested_to_the_second() -> None:
    """A service that fails is started again when the clock says so, and not before."""
    runs: list[float] = []

    class Brittle(Service):
        restart = Restart("on-failure", limit=2, backoff=Backoff(first=10, jitter=0))

        async def run(self) -> None:
            runs.append(asyncio.get_running_loop().time())
            raise ValueError("no rhyme")

    async def main() -> None:
        async with Brittle("brittle"):
            await advance(29)
            assert runs == [0, 10]
            await advance(1)

    with pytest.raises(ServiceFailed, match="no rhyme"):
        stepped(main())
    assert runs == [0, 10, 30]
