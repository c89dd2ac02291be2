import asyncio
from typing import Any

import pytest

from tamed.errors import DeadlinePassed, ServiceFailed
from tamed.service.lifecycle import State
from tamed.service.restart import Backoff, Restart
from tamed.service.service import MultiService, Service
from tamed.testing.clock import VirtualClockLoop
from tests.service.stand_ins import Body, Broken, Diary, Probe

pytestmark = pytest.mark.anyio

STEADY = Backoff(first=1, factor=2, maximum=60, jitter=0)


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run these tests on a clock of their own, so that backoffs take no time."""
    return "asyncio", {"loop_factory": VirtualClockLoop}


def on_failure(limit: int | None = 5, within: float = 60) -> Restart:
    """Return a policy without jitter."""
    return Restart("on-failure", limit, within, STEADY)


def now() -> float:
    """Return the time on the loop's clock."""
    return asyncio.get_running_loop().time()


def body(diary: Diary, name: str = "body", restart: Restart | None = None) -> Body:
    """Return a service that is restarted when it fails."""
    service = Body(name, diary)
    service.restart = restart or on_failure()
    return service


class Always(Probe):
    """Fails, or ends, as soon as it runs."""

    error: Exception | None = None

    async def run(self) -> None:
        self.diary.append(f"run at {now():g}")
        if self.error is not None:
            raise self.error


async def test_a_service_that_fails_is_stopped_and_started_again(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """After the backoff; it is neither released nor prepared, and its siblings notice nothing."""
    service = body(diary)
    async with MultiService("root", Probe("other", diary), service):
        await diary.until("run body")
        diary.clear()
        service.fail()
        await diary.until("stop body")
        assert service.restarting
        await asyncio.sleep(0.9)
        assert (service.state, service.restarting) == (State.STOPPED, True)
        await diary.until("run body")
        assert now() == 1.0
        assert (service.state, service.restarting, service.restarts) == (State.RUNNING, False, 1)
        assert diary == ["ran body", "stop body", "start body", "run body"]
    assert caplog.messages == ["service body failed in run: Broken: body broke; restarting it in 1.0 s"]


async def test_the_waits_grow_and_the_limit_ends_them(diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    """A service that fails time and again is given up, and the failure goes to its parent."""
    service = Always("always", diary)
    service.error = Broken("again")
    service.restart = on_failure(limit=3)
    root = MultiService("root", service)
    with pytest.raises(ServiceFailed, match="service always failed in run: Broken: again"):
        async with root:
            await asyncio.Event().wait()
    assert [line for line in diary if "run" in line] == [f"run at {time}" for time in (0, 1, 3, 7)]
    assert caplog.messages[-2:] == [
        "giving up service always after 3 restarts",
        "service always failed in run: Broken: again",
    ]


async def test_a_service_that_ends_is_started_again_if_it_is_always_to_run(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """One that keeps ending is a failure in the end."""
    service = Always("always", diary)
    service.restart = Restart("always", 2, 60, STEADY)
    with pytest.raises(ServiceFailed, match="it keeps ending: 2 restarts within 60 s"):
        async with service:
            await asyncio.Event().wait()
    assert [line for line in diary if "run" in line] == ["run at 0", "run at 1", "run at 3"]
    assert caplog.messages == ["service always failed in run: it keeps ending: 2 restarts within 60 s"]


async def test_a_service_that_was_up_for_long_begins_the_backoff_anew(diary: Diary) -> None:
    """Two failures a day apart are two first failures."""
    service = body(diary, restart=on_failure(limit=1))
    async with service:
        for _ in range(3):
            await asyncio.sleep(100)
            service.fail()
            failed_at = now()
            await diary.until("run body")
            assert now() - failed_at == 1.0
        assert service.restarts == 3


async def test_failing_to_start_is_no_time_that_it_was_up(diary: Diary) -> None:
    """When a service that was up for long does not start any more, the waits grow all the same."""
    service = body(diary, restart=on_failure(limit=None))
    async with MultiService("root", service):
        await asyncio.sleep(1000)
        service.fails["start"] = Broken("not now")
        service.fail()
        times = []
        for _ in range(4):
            await diary.until("start body")
            times.append(now())
        assert times == [1001, 1003, 1007, 1015]


async def test_a_service_whose_stop_hangs_is_restarted_after_the_deadline(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """The stop is reported, and does not keep the service from being started again."""
    service = body(diary)
    service.stop_timeout = 10
    async with MultiService("root", service):
        await diary.until("run body")
        service.holds["stop"] = asyncio.Event()
        service.fail()
        await diary.until("run body")
        assert now() == 11.0
        assert caplog.messages[1:] == ["service body failed in stop: not done within 10 s"]
        service.holds.clear()


async def test_a_body_that_was_left_behind_does_not_fail_the_next_one(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """What becomes of it is logged, and is no failure of the service that runs by then."""
    gate = asyncio.Event()

    class Stubborn(Service):
        stop_timeout = 5
        lives = 0

        async def run(self) -> None:
            self.lives += 1
            if self.lives > 1:
                await asyncio.Event().wait()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await gate.wait()
                raise Broken("at last") from None

    stubborn = Stubborn("stubborn")
    root = MultiService("root", stubborn)
    await root.lifecycle.bring_up()
    await asyncio.sleep(1)
    assert len(await root.lifecycle.take_down()) == 1
    await root.lifecycle.bring_up()
    gate.set()
    await asyncio.sleep(1)
    assert root.state is State.RUNNING
    await root.lifecycle.take_down()
    assert caplog.messages == [
        "service stubborn failed in run: not done within 5 s",
        "service stubborn failed in run: Broken: at last",
    ]


async def test_a_body_that_was_left_behind_may_end_well(caplog: pytest.LogCaptureFixture) -> None:
    """Then there is nothing more to say."""
    gate = asyncio.Event()

    class Slow(Service):
        stop_timeout = 5

        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await gate.wait()

    async with MultiService("root", slow := Slow("slow")) as root:
        await asyncio.sleep(1)
        await root.remove(slow)
        gate.set()
        await asyncio.sleep(1)
    assert caplog.messages == ["service slow failed in run: not done within 5 s"]


async def test_a_stop_without_a_deadline_waits_for_the_body(diary: Diary) -> None:
    """A timeout of None is no timeout."""

    class Slow(Service):
        stop_timeout = None

        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(10_000)

    async with Slow():
        await asyncio.sleep(0)
    assert now() == 10_000


async def test_a_stop_during_the_backoff_is_final(diary: Diary) -> None:
    """What waits to be started again is not started any more, and is released."""
    service = body(diary)
    root = MultiService("root", service)
    await root.lifecycle.bring_up()
    await diary.until("run body")
    service.fail()
    await asyncio.sleep(0.5)
    diary.clear()
    await root.lifecycle.take_down()
    await asyncio.sleep(100)
    assert diary == ["release body"]
    assert not service.restarting


async def test_a_root_that_is_stopped_during_its_own_backoff_stays_stopped(diary: Diary) -> None:
    """A root is restarted like any other service, and the stop is final there too."""
    root = body(diary)
    await root.lifecycle.bring_up()
    await diary.until("run body")
    root.fail()
    await asyncio.sleep(0.5)
    await root.lifecycle.take_down()
    await asyncio.sleep(100)
    assert diary[-2:] == ["stop body", "release body"]
    assert root.state is State.STOPPED


async def test_a_root_is_restarted_with_all_below(diary: Diary) -> None:
    """The body of ``async with`` goes on meanwhile."""
    child = Body("child", diary)
    async with MultiService("root", Probe("one", diary), child, restart=on_failure()) as root:
        await diary.until("run child")
        diary.clear()
        child.fail()
        await diary.until("run child")
        assert diary == ["ran child", "stop child", "stop one", "start one", "start child", "run child"]
        assert (now(), root.restarts, root.state) == (1.0, 1, State.RUNNING)


async def test_a_stop_while_a_service_is_stopped_for_a_restart_waits_for_it(diary: Diary) -> None:
    """The stop hook is called once, to its end, and the service is not started again."""
    gate = asyncio.Event()
    service = body(diary)
    root = MultiService("root", Probe("one", diary), service)
    await root.lifecycle.bring_up()
    await diary.until("run body")
    service.holds["stop"] = gate
    service.fail()
    await service.entered.wait()
    stopping = asyncio.create_task(root.lifecycle.take_down())
    await asyncio.sleep(1)
    assert diary.of("stop") == ["body"]
    gate.set()
    await stopping
    await asyncio.sleep(100)
    assert diary.of("stop") == ["body", "one"]
    assert diary[-2:] == ["release body", "release one"]


async def test_a_stop_while_a_service_is_started_again_rolls_that_back(diary: Diary) -> None:
    """A start that is given up is cancelled like any other."""
    service = body(diary)
    root = MultiService("root", service)
    await root.lifecycle.bring_up()
    await diary.until("run body")
    service.holds["start"] = asyncio.Event()
    service.fail()
    await service.entered.wait()
    await asyncio.gather(root.lifecycle.take_down(), root.lifecycle.take_down())
    assert diary[-3:] == ["stop body", "start body", "release body"]
    assert not root.lifecycle.is_started


async def test_a_child_that_waits_to_be_started_again_can_be_removed(diary: Diary) -> None:
    """It is not started any more."""
    service = body(diary)
    async with MultiService("root", service) as root:
        await diary.until("run body")
        service.fail()
        await asyncio.sleep(0.5)
        await root.remove(service)
        await asyncio.sleep(100)
        assert diary[-1] == "release body"
        assert (list(root), service.restarting) == ([], False)


async def test_a_child_that_is_started_again_may_be_removed_by_two(diary: Diary) -> None:
    """The start is given up once, and both wait until it is undone."""
    service = body(diary)
    async with MultiService("root", service) as root:
        await diary.until("run body")
        service.holds["start"] = asyncio.Event()
        service.fail()
        await service.entered.wait()
        await asyncio.gather(root.remove(service), root.remove(service))
        assert list(root) == []
    assert diary.of("release") == ["body"]


async def test_a_restarted_multi_service_tells_all_below_that_it_is_one(diary: Diary) -> None:
    """A server anywhere below keeps its sockets, because all are told, and are told again when they run."""
    seen: list[tuple[str, bool]] = []

    class Server(Probe):
        async def stop(self) -> None:
            seen.append(("stop", self.restarting))

        async def start(self) -> None:
            seen.append(("start", self.restarting))

    failing = Body("failing", diary)
    group = MultiService(
        "group", MultiService("inner", Server("server", diary)), failing, restart=on_failure()
    )
    async with MultiService("root", group):
        await diary.until("run failing")
        failing.fail()
        await diary.until("run failing")
        assert not any(service.restarting for service in group.walk())
    assert seen == [("start", False), ("stop", True), ("start", True), ("stop", False)]


async def test_a_start_that_fails_again_keeps_the_sockets_for_the_next_one(diary: Diary) -> None:
    """What a failed restart undoes is stopped as for a restart, since there is another one."""
    seen: list[bool] = []

    class Server(Probe):
        async def stop(self) -> None:
            seen.append(self.restarting)

    failing = Body("failing", diary)
    group = MultiService("group", Server("server", diary), failing, restart=on_failure())
    async with MultiService("root", group):
        await diary.until("run failing")
        failing.fails["start"] = Broken("not yet")
        failing.fail()
        await asyncio.sleep(2)
        failing.fails.clear()
        await diary.until("run failing")
        assert seen == [True, True]
        assert diary.of("release") == []


async def test_a_failure_goes_up_until_a_policy_takes_it(diary: Diary) -> None:
    """The multi-service in the middle is restarted; above it nobody notices."""
    leaf = Body("leaf", diary)
    middle = MultiService("middle", MultiService("inner", leaf), restart=on_failure())
    async with MultiService("root", Probe("other", diary), middle) as root:
        await diary.until("run leaf")
        diary.clear()
        leaf.fail()
        await diary.until("run leaf")
        assert "other" not in diary.of("stop")
        assert {service.state for service in root.walk()} == {State.RUNNING}


async def test_a_child_that_fails_for_good_in_a_restart_fails_that(diary: Diary) -> None:
    """A restart of a multi-service ends when one that it has started already fails; the policy counts it."""
    first, second = Body("first", diary), Probe("second", diary)
    group = MultiService("group", first, second, restart=on_failure())
    async with MultiService("root", group):
        await diary.until("run first")
        second.holds["start"] = asyncio.Event()
        first.fail()
        await second.entered.wait()
        second.entered.clear()
        first.fail()
        await second.entered.wait()
        assert (now(), group.restarts) == (3.0, 2)
        second.holds["start"].set()
        await asyncio.sleep(1)
        assert group.state is State.RUNNING
    assert diary.of("start") == ["first", "second", "first", "second", "first", "second"]


async def test_a_service_is_brought_back_while_its_parent_still_starts(diary: Diary) -> None:
    """One for one, it need not wait: a sibling may be waiting for it."""
    first = body(diary, "first")
    second = Probe("second", diary, holds={"start": asyncio.Event()})
    root = MultiService("root", first, second)
    starting = asyncio.create_task(root.lifecycle.bring_up())
    await second.entered.wait()
    first.fail()
    await diary.until("run first")
    assert not starting.done()
    second.holds["start"].set()
    await starting
    assert root.state is State.RUNNING
    await root.lifecycle.take_down()
    assert diary.of("start") == ["first", "second", "first"]


async def test_a_service_that_exits_when_it_is_started_again_ends_the_root(diary: Diary) -> None:
    """``SystemExit`` is never a reason for another try."""
    service = body(diary)

    async def use() -> None:
        async with MultiService("root", service):
            await diary.until("run body")
            service.fails["start"] = SystemExit(4)
            service.fail()
            await asyncio.Event().wait()

    with pytest.raises(ServiceFailed, match="service body failed in start: SystemExit: 4"):
        await use()
    assert service.restarts == 1


async def test_a_hook_that_lets_a_cancellation_through_does_not_end_the_recovery(diary: Diary) -> None:
    """A start that fails because something it waited for was cancelled is tried again like any other."""
    service = body(diary)
    async with MultiService("root", service):
        await diary.until("run body")
        service.fails["start"] = asyncio.CancelledError()
        service.fail()
        await diary.until("start body")
        service.fails.clear()
        await diary.until("run body")
        assert service.restarts == 2


async def test_a_new_life_begins_with_a_whole_budget(diary: Diary) -> None:
    """An application that is started again does not remember the restarts of its earlier life."""
    service = body(diary, restart=on_failure(limit=1))
    for _ in range(2):
        async with service:
            await diary.until("run body")
            service.fail()
            await diary.until("run body")
            assert service.restarts == 1


async def test_a_deadline_in_a_restart_counts_as_a_failure(diary: Diary) -> None:
    """A start that overruns when it is tried again is one more failure."""
    service = body(diary, restart=on_failure(limit=1))
    service.start_timeout = 7

    async def use() -> None:
        async with service:
            await diary.until("run body")
            service.holds["start"] = asyncio.Event()
            service.fail()
            await asyncio.Event().wait()

    with pytest.raises(ServiceFailed) as caught:
        await use()
    assert isinstance(caught.value.cause, DeadlinePassed)
    assert now() == 8.0
