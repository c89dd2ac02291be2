import asyncio
from typing import Any

import pytest

from tamed.errors import DeadlinePassed, ServiceFailed
from tamed.service.lifecycle import State
from tamed.service.service import MultiService, Service
from tamed.testing.clock import VirtualClockLoop
from tests.service.stand_ins import Diary, Probe

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run these tests on a clock of their own, so that deadlines come at once."""
    return "asyncio", {"loop_factory": VirtualClockLoop}


def now() -> float:
    """Return the time on the loop's clock."""
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("phase", ["prepare", "start"])
async def test_a_hook_on_the_way_up_has_a_deadline(diary: Diary, phase: str) -> None:
    """A service that does not get ready in time has failed, and the others are stopped."""
    slow = Probe("slow", diary, holds={phase: asyncio.Event()})
    root = MultiService("root", Probe("one", diary), slow)
    with pytest.raises(
        ServiceFailed, match=f"service slow failed in {phase}: not done within 60 s"
    ) as caught:
        await root.lifecycle.bring_up()
    assert isinstance(caught.value.cause, DeadlinePassed)
    assert caught.value.cause.seconds == now() == 60
    assert diary.of("release")[-1] == "one"


@pytest.mark.parametrize("phase", ["stop", "release"])
async def test_a_hook_on_the_way_down_has_a_deadline(diary: Diary, phase: str) -> None:
    """One that does not end in time is reported, and the others are stopped all the same."""
    slow = Probe("slow", diary, holds={phase: asyncio.Event()})
    root = MultiService("root", Probe("one", diary), slow)
    await root.lifecycle.bring_up()
    (failure,) = await root.lifecycle.take_down()
    assert (failure.path, failure.phase, str(failure.cause)) == ("slow", phase, "not done within 30 s")
    assert now() == 30
    assert diary.of("release") == ["slow", "one"]


async def test_each_hook_has_its_own_deadline(diary: Diary) -> None:
    """The seconds are for one hook, and not for all of a tree."""

    class Slow(Service):
        start_timeout = 10
        stop_timeout = 5

        async def prepare(self) -> None:
            await asyncio.sleep(9)

        async def start(self) -> None:
            await asyncio.sleep(9)

        async def stop(self) -> None:
            await asyncio.sleep(4)

        async def release(self) -> None:
            await asyncio.sleep(4)

    root = MultiService("root", Slow(), Slow())
    await root.lifecycle.bring_up()
    assert now() == 36
    assert await root.lifecycle.take_down() == []
    assert now() == 52


async def test_there_may_be_no_deadline() -> None:
    """A timeout of None waits for ever."""

    class Slow(Service):
        async def start(self) -> None:
            await asyncio.sleep(10_000)

        async def stop(self) -> None:
            await asyncio.sleep(10_000)

    async with Slow(start_timeout=None, stop_timeout=None):
        assert now() == 10_000
    assert now() == 20_000


async def test_a_deadline_set_in_the_start_holds_for_the_stop() -> None:
    """A service may find out how long its stop takes when it starts, as servers do."""

    class Late(Service):
        async def start(self) -> None:
            self.stop_timeout = 100

        async def stop(self) -> None:
            await asyncio.sleep(99)

    async with Late():
        pass
    assert now() == 99


async def test_a_timeout_of_the_hooks_own_is_no_deadline() -> None:
    """``TimeoutError`` from within is a failure like any other."""

    class Client(Service):
        async def start(self) -> None:
            async with asyncio.timeout(1):
                await asyncio.Event().wait()

    with pytest.raises(ServiceFailed, match="service client failed in start: TimeoutError"):
        await Client().lifecycle.bring_up()


async def test_a_hook_that_catches_its_cancellation_is_waited_for() -> None:
    """A hook that catches its cancellation at the deadline and returns has not failed."""

    class Stubborn(Service):
        async def start(self) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(5)

    async with Stubborn() as service:
        assert now() == 65
        assert service.state is State.RUNNING


async def test_a_cancellation_at_the_deadline_stays_one(diary: Diary) -> None:
    """When the start is cancelled in the moment in which its deadline passes, it is cancelled."""
    slow = Probe("slow", diary, holds={"start": asyncio.Event()})
    starting = asyncio.create_task(slow.lifecycle.bring_up())
    asyncio.get_running_loop().call_at(60, starting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert diary.of("release") == ["slow"]
