import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from tamed.errors import ServiceFailed, ServiceMisuse
from tamed.service.lifecycle import Lifecycle, State
from tamed.service.service import MultiService, Service
from tests.service.stand_ins import Body, Broken, Diary, Probe

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("phase", ["prepare", "start"])
async def test_a_start_that_is_cancelled_undoes_itself(diary: Diary, phase: str) -> None:
    """After a cancelled start, no service is started or prepared."""
    one, two = Probe("one", diary), Probe("two", diary, holds={phase: asyncio.Event()})
    root = MultiService("root", one, MultiService("group", two), Probe("three", diary))
    starting = asyncio.create_task(root.lifecycle.bring_up())
    await two.entered.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert diary.of("stop") == diary.of("start")[:-1]
    assert diary.of("release") == diary.of("prepare")[: -1 if phase == "prepare" else None][::-1]
    assert not any(each.is_started or each.is_prepared for each in root.lifecycle.walk())


async def test_a_cancelled_stop_goes_to_its_end(diary: Diary) -> None:
    """The hook that is waited for is interrupted, all others are called, and the cancellation is raised."""
    never = asyncio.Event()
    one, two, three = (
        Probe("one", diary),
        Probe("two", diary, holds={"stop": never}),
        Probe("three", diary, holds={"stop": never, "release": never}),
    )
    root = MultiService("root", one, MultiService("group", two), three)
    await root.lifecycle.bring_up()
    stopping = asyncio.create_task(root.lifecycle.take_down())
    for expected in ("stop three", "stop two", "release three"):
        await diary.until(expected)
        stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert diary.of("stop") == diary.of("release") == ["three", "two", "one"]
    assert [one.state, two.state, three.state] == [State.STOPPED, State.FAILED, State.FAILED]


async def test_a_cancelled_hook_that_raises_something_else_is_reported(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """A stop that fails when it is interrupted has failed, and does not hide the cancellation either."""

    class Bad(Probe):
        async def stop(self) -> None:
            self.entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise Broken("half done") from None

    bad = Bad("bad", diary)
    await bad.lifecycle.bring_up()
    stopping = asyncio.create_task(bad.lifecycle.take_down())
    await bad.entered.wait()
    stopping.cancel()
    await stopping  # the hook has turned its cancellation into a failure, as any coroutine may
    assert caplog.messages == ["service bad failed in stop: Broken: half done"]


async def test_a_stop_hook_that_is_cancelled_before_it_waits_does_not_keep_the_others(diary: Diary) -> None:
    """A cancellation may come between two hooks, and be raised by the next one at once."""

    class Impatient(Probe):
        async def stop(self) -> None:
            diary.append(f"stop {self.name}")
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            raise asyncio.CancelledError

    root = MultiService("root", Probe("one", diary), Impatient("two", diary))
    await root.lifecycle.bring_up()
    stopping = asyncio.create_task(root.lifecycle.take_down())
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert diary.of("stop") == diary.of("release") == ["two", "one"]


async def test_a_rollback_that_is_cancelled_goes_to_its_end(diary: Diary) -> None:
    """When a start is cancelled a second time, while it is undone, it is undone all the same."""
    never = asyncio.Event()
    one = Probe("one", diary)
    two = Probe("two", diary, holds={"stop": never})
    three = Probe("three", diary, fails={"start": Broken("no")})
    starting = asyncio.create_task(MultiService("root", one, two, three).lifecycle.bring_up())
    await two.entered.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert diary.of("stop") == ["two", "one"]
    assert diary.of("release") == ["three", "two", "one"]


async def test_a_stop_that_is_cancelled_waits_for_the_body_all_the_same(diary: Diary) -> None:
    """The stop hook is never called while the body still runs."""
    gate = asyncio.Event()

    class Slow(Probe):
        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                self.entered.set()
                await gate.wait()
                diary.append("ran slow")

    slow = Slow("slow", diary)
    await slow.lifecycle.bring_up()
    await asyncio.sleep(0)
    stopping = asyncio.create_task(slow.lifecycle.stop())
    await slow.entered.wait()
    stopping.cancel()
    await asyncio.sleep(0)
    assert diary[-1] == "start slow"
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert diary[-2:] == ["ran slow", "stop slow"]


async def test_a_stop_waits_for_the_start_that_is_under_way(diary: Diary) -> None:
    """A stop during a start takes effect after it: the service is down in the end."""
    gate = asyncio.Event()
    one = Probe("one", diary, holds={"start": gate})
    starting = asyncio.create_task(one.lifecycle.bring_up())
    await one.entered.wait()
    stopping = asyncio.create_task(one.lifecycle.take_down())
    gate.set()
    await asyncio.gather(starting, stopping)
    assert diary == ["prepare one", "start one", "stop one", "release one"]


async def test_two_that_start_a_service_start_it_once(diary: Diary) -> None:
    """The second call raises that the service is running."""
    gate = asyncio.Event()
    one = Probe("one", diary, holds={"start": gate})
    first = asyncio.create_task(one.lifecycle.bring_up())
    await one.entered.wait()
    second = asyncio.create_task(one.lifecycle.bring_up())
    gate.set()
    await first
    with pytest.raises(ServiceMisuse, match="it is running already"):
        await second
    assert diary == ["prepare one", "start one"]


async def test_two_that_stop_a_service_stop_it_once(diary: Diary) -> None:
    """The second call waits until the service is stopped, and raises nothing."""
    gate = asyncio.Event()
    one = Probe("one", diary, holds={"stop": gate})
    await one.lifecycle.bring_up()
    stops = [asyncio.create_task(one.lifecycle.take_down()) for _ in range(3)]
    await one.entered.wait()
    gate.set()
    assert await asyncio.gather(*stops) == [[], [], []]
    assert diary == ["prepare one", "start one", "stop one", "release one"]


@pytest.mark.parametrize("phase", ["start", "stop"])
@pytest.mark.parametrize("ask", [Lifecycle.take_down, Lifecycle.start, Lifecycle.prepare])
async def test_a_hook_that_waits_for_its_own_end_is_reported(
    diary: Diary, phase: str, ask: Callable[[Lifecycle], Awaitable[Any]]
) -> None:
    """Such a hook would wait for ever, so the call is misuse and fails the hook."""

    class Confused(Probe):
        async def _do(self, now: str) -> None:
            await super()._do(now)
            if now == phase:
                await ask(self.root_service.lifecycle)

    root = MultiService("root", Confused("one", diary))
    failures = []
    try:
        await root.lifecycle.bring_up()
    except ServiceFailed as failure:
        failures.append(failure)
    failures += await root.lifecycle.take_down()
    told = "a hook cannot wait until a service is started or stopped: that waits for the hook; start or stop"
    assert [str(failure.cause) for failure in failures] == [f"{told} it in another task"]


async def test_an_added_service_whose_start_stops_the_parent_is_reported(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """The call also fails if the start has its own task; the parent can be stopped afterwards."""

    class Confused(Probe):
        async def start(self) -> None:
            await self.root_service.lifecycle.take_down()

    root = MultiService("root", Probe("one", diary))
    await root.lifecycle.bring_up()
    with pytest.raises(ServiceFailed, match="a hook cannot wait until a service is started or stopped"):
        await root.add(Confused("two", diary))
    await root.lifecycle.take_down()
    assert diary.of("stop") == ["one"]


async def test_hooks_may_bring_up_other_services(diary: Diary) -> None:
    """A service may use another one in its hooks, if that is not its own tree."""

    class User(Probe):
        async def start(self) -> None:
            async with Probe("tool", diary):
                await super().start()

    async with MultiService("root", User("user", diary)):
        assert diary.of("start") == ["tool", "user"]
        assert diary.of("stop") == ["tool"]


class Interrupted(BaseException):
    """Stands for KeyboardInterrupt, which would end the whole test run."""


async def test_an_interrupt_is_not_made_a_failure(diary: Diary) -> None:
    """What is no Exception goes straight through: there may be no event loop to undo anything in."""
    root = MultiService("root", Probe("one", diary), Probe("two", diary, fails={"start": Interrupted()}))
    with pytest.raises(Interrupted):
        await root.lifecycle.bring_up()
    await root.lifecycle.take_down()
    assert diary.of("stop") == ["one"]


async def test_a_hook_that_exits_fails_its_phase_with_that(diary: Diary) -> None:
    """``SystemExit`` from a hook does not tear down the event loop; its status is found in the failure."""
    root = MultiService("root", Probe("one", diary), Probe("two", diary, fails={"start": SystemExit(3)}))
    with pytest.raises(ServiceFailed, match="service two failed in start: SystemExit: 3") as caught:
        await root.lifecycle.bring_up()
    assert isinstance(caught.value.cause, SystemExit)
    assert diary.of("stop") == ["one"]


class Suspends:
    """An awaitable that writes down what is sent and thrown into it."""

    def __init__(self, diary: Diary) -> None:
        self.diary = diary

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            for _ in range(2):
                await_result = yield
                self.diary.append(f"sent {await_result}")
        except GeneratorExit:
            self.diary.append("closed")
            raise


async def test_a_hook_is_resumed_as_await_would(diary: Diary) -> None:
    """A hook that suspends more than once is resumed with what the event loop sends."""

    class Waiting(Service):
        async def start(self) -> None:
            await Suspends(diary)

    async with Waiting():
        assert diary == ["sent None", "sent None"]


async def test_a_hook_is_closed_when_its_start_is_thrown_away(diary: Diary) -> None:
    """A start that is never resumed, because its event loop is gone, leaves no hook behind."""

    class Waiting(Service):
        async def start(self) -> None:
            await Suspends(diary)

    bringing = Waiting().lifecycle.bring_up()
    bringing.send(None)
    bringing.close()
    assert diary == ["closed"]


async def test_a_hook_may_catch_a_failure_and_go_on(diary: Diary) -> None:
    """An exception that is thrown into a hook is its own to handle."""

    class Patient(Service):
        async def start(self) -> None:
            broken = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(broken.set_exception, Broken("first"))
            try:
                await broken
            except Broken:
                await asyncio.sleep(0)
                diary.append("second try")

    async with Patient():
        assert diary == ["second try"]


async def test_a_child_that_fails_while_its_parent_starts_fails_the_start(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """A root never runs on top of a child that has failed for good; the start does not wait to say so."""
    first = Body("first", diary)
    held = Probe("held", diary, holds={"start": asyncio.Event()})
    root = MultiService("root", MultiService("group", first), held, Probe("last", diary))
    starting = asyncio.create_task(root.lifecycle.bring_up())
    await held.entered.wait()
    first.fail()
    with pytest.raises(ServiceFailed, match="service group/first failed in run: Broken: first broke"):
        await starting
    assert caplog.messages == ["service group/first failed in run: Broken: first broke; root does not start"]
    assert root.state is State.FAILED
    assert diary.of("start") == ["first", "held"]
    assert diary.of("stop") == ["first"]
    assert not any(each.is_started or each.is_prepared for each in root.lifecycle.walk())


async def test_a_start_that_ends_in_spite_of_such_a_failure_fails(diary: Diary) -> None:
    """A hook that catches the cancellation does not let the root run either."""
    first = Body("first", diary)

    class Stubborn(Probe):
        async def start(self) -> None:
            self.entered.set()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()

    stubborn = Stubborn("stubborn", diary)
    starting = asyncio.create_task(MultiService("root", first, stubborn).lifecycle.bring_up())
    await stubborn.entered.wait()
    first.fail()
    with pytest.raises(ServiceFailed, match="first broke"):
        await starting
    assert diary.of("stop") == ["stubborn", "first"]


async def test_a_hook_that_fails_because_of_such_a_failure_hides_nothing(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own failure is raised, as the last word of the start, and the first one has been logged."""
    first = Body("first", diary)

    class Bad(Probe):
        async def start(self) -> None:
            self.entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise Broken("half done")

    bad = Bad("bad", diary)
    starting = asyncio.create_task(MultiService("root", first, bad).lifecycle.bring_up())
    await bad.entered.wait()
    first.fail()
    with pytest.raises(ServiceFailed, match="service bad failed in start: Broken: half done"):
        await starting
    assert caplog.messages == ["service first failed in run: Broken: first broke; root does not start"]
    assert diary.of("stop") == ["first"]


async def test_the_first_of_two_failures_fails_the_start(diary: Diary) -> None:
    """What fails after that is part of the same end."""
    one, two = Body("one", diary), Body("two", diary)
    held = Probe("held", diary, holds={"start": asyncio.Event()})
    starting = asyncio.create_task(MultiService("root", one, two, held).lifecycle.bring_up())
    await held.entered.wait()
    one.fail()
    two.fail()
    with pytest.raises(ServiceFailed, match="one broke"):
        await starting
    assert starting.cancelling() == 0


async def test_failures_on_two_levels_fail_the_start_once(diary: Diary) -> None:
    """The failure that reaches the root is raised, whatever else fails below in the same moment."""
    top, below = Body("top", diary), Body("below", diary)
    held = Probe("held", diary, holds={"start": asyncio.Event()})
    root = MultiService("root", top, MultiService("group", below, held))
    starting = asyncio.create_task(root.lifecycle.bring_up())
    await held.entered.wait()
    below.fail()
    top.fail()
    with pytest.raises(ServiceFailed, match="top broke"):
        await starting
    assert starting.cancelling() == 0
    assert diary.of("stop") == ["below", "top"]


async def test_an_exit_while_the_root_starts_fails_the_start(diary: Diary) -> None:
    """A root that is no application has no exit status to choose, so it fails with the SystemExit."""
    first = Body("first", diary)
    held = Probe("held", diary, holds={"start": asyncio.Event()})
    starting = asyncio.create_task(MultiService("root", first, held).lifecycle.bring_up())
    await held.entered.wait()
    first.fail(SystemExit(5))
    with pytest.raises(ServiceFailed, match="SystemExit: 5"):
        await starting
    assert diary.of("stop") == ["first"]


async def test_a_failure_during_the_stop_is_only_reported(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails while its parent is stopping is not brought back, and is stopped in its turn."""
    gate = asyncio.Event()
    first, second = Body("first", diary), Probe("second", diary, holds={"stop": gate})
    ending = Body("ending", diary)
    root = MultiService("root", first, ending, second)
    await root.lifecycle.bring_up()
    await asyncio.sleep(0)
    stopping = asyncio.create_task(root.lifecycle.take_down())
    await second.entered.wait()
    first.fail()
    ending.end()
    await diary.until("ran first")
    gate.set()
    await stopping
    assert caplog.messages == ["service first failed in run: Broken: first broke; it was being stopped"]
    assert diary.of("stop") == ["second", "ending", "first"]
    assert root.state is State.STOPPED


async def test_the_log_tells_the_order(diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    """The log has a line when a service has started and one when it has stopped."""
    caplog.set_level("INFO", "tamed.service")
    idle = MultiService("idle", Service("bare"))
    bad = Probe("bad", diary, fails={"stop": Broken("no")})
    slow = Probe("slow", diary, holds={"start": asyncio.Event()})
    slow.holds["start"].set()
    root = MultiService("root", idle, MultiService("group", Body("body", diary)), slow, bad)
    await root.lifecycle.bring_up()
    assert caplog.messages == ["started group/body", "started slow", "started bad"]
    caplog.clear()
    await root.lifecycle.take_down()
    assert caplog.messages[1:] == ["stopped slow", "stopped group/body"]
    caplog.clear()
    async with Probe("root", diary):
        pass
    assert caplog.messages == ["started root", "stopped root"]


async def test_many_levels_start_and_stop(diary: Diary) -> None:
    """A tree may be deep; each level's start is part of the one above."""
    root = service = MultiService("0")
    for level in range(1, 100):
        child = MultiService(str(level))
        service.add(child)
        service = child
    service.add(Probe("leaf", diary))
    async with root:
        assert {one.state for one in root.walk()} == {State.RUNNING}
    assert diary.of("release") == ["leaf"]
