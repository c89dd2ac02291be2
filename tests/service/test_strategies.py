import asyncio
from typing import Any

import pytest

from tamed.errors import ServiceFailed
from tamed.service.group import Strategy
from tamed.service.lifecycle import State
from tamed.service.restart import Backoff, Restart
from tamed.service.service import MultiService, Service
from tamed.testing.clock import VirtualClockLoop
from tests.service.stand_ins import Body, Broken, Diary, Probe

pytestmark = pytest.mark.anyio

ON_FAILURE = Restart("on-failure", backoff=Backoff(first=1, jitter=0))


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run these tests on a clock of their own, so that backoffs take no time."""
    return "asyncio", {"loop_factory": VirtualClockLoop}


def bodies(diary: Diary, *names: str) -> list[Body]:
    """Return services that are restarted when they fail."""
    made = [Body(name, diary) for name in names]
    for one in made:
        one.restart = ON_FAILURE
    return made


@pytest.mark.parametrize(
    ("strategy", "stopped"),
    [("one_for_one", ["b"]), ("one_for_all", ["c", "b", "a"]), ("rest_for_one", ["c", "b"])],
)
async def test_a_strategy_says_who_is_restarted(diary: Diary, strategy: Strategy, stopped: list[str]) -> None:
    """They are stopped in reverse, then started in order, after one backoff."""
    a, b, c = bodies(diary, "a", "b", "c")
    async with MultiService("root", a, b, c, strategy=strategy) as root:
        await diary.until("run c")
        diary.clear()
        b.fail()
        await diary.until(f"run {stopped[0]}")
        assert diary.of("stop") == stopped
        assert diary.of("start") == stopped[::-1]
        assert asyncio.get_running_loop().time() == 1.0
        assert [service.restarts for service in (a, b, c)] == [0, 1, 0]
        assert not any(service.restarting for service in root.walk())


async def test_a_group_may_have_children_without_a_body(diary: Diary) -> None:
    """Plain services are restarted with the others."""
    (b,) = bodies(diary, "b")
    async with MultiService("root", Probe("a", diary), b, Service("c"), strategy="one_for_all"):
        await diary.until("run b")
        diary.clear()
        b.fail()
        await diary.until("run b")
        assert diary == ["ran b", "stop b", "stop a", "start a", "start b", "run b"]


async def test_one_that_fails_while_the_group_is_stopped_is_restarted_with_it(diary: Diary) -> None:
    """Two that fail together are one restart, after the longer of their waits."""
    a, b, c = bodies(diary, "a", "b", "c")
    c.holds["stop"] = asyncio.Event()
    async with MultiService("root", a, b, c, strategy="one_for_all"):
        await diary.until("run c")
        diary.clear()
        b.fail()
        await c.entered.wait()
        a.fail()
        await diary.until("ran a")
        c.holds["stop"].set()
        await diary.until("run c")
        assert diary.of("start") == ["a", "b", "c"]
        await asyncio.sleep(100)
        assert diary.of("start") == ["a", "b", "c"]
        c.holds.clear()


async def test_one_that_fails_outside_the_group_that_is_restarted_comes_next(diary: Diary) -> None:
    """Rest for one: an earlier child that fails meanwhile has a round of its own."""
    a, b, c = bodies(diary, "a", "b", "c")
    async with MultiService("root", a, b, c, strategy="rest_for_one"):
        await diary.until("run c")
        diary.clear()
        b.fail()
        await asyncio.sleep(0.5)
        a.fail()
        await diary.until("run c")
        assert diary.of("start") == ["b", "c", "a", "b", "c"]


async def test_one_that_fails_while_the_group_is_started_comes_next(diary: Diary) -> None:
    """The round is finished first, and then begun again."""
    a, b = bodies(diary, "a", "b")
    async with MultiService("root", a, b, strategy="one_for_all") as root:
        await diary.until("run b")
        b.holds["start"] = asyncio.Event()
        diary.clear()
        b.fail()
        await b.entered.wait()
        a.fail()
        await diary.until("ran a")
        b.holds["start"].set()
        await diary.until("start b")
        await diary.until("run b")
        assert diary.of("start") == ["a", "b", "a", "b"]
        assert {service.state for service in root.walk()} == {State.RUNNING}


async def test_a_group_whose_parent_still_starts_is_restarted_after_that(diary: Diary) -> None:
    """Services that are not started yet cannot be restarted, so the start goes on first."""
    (a,) = bodies(diary, "a")
    b = Probe("b", diary, holds={"start": asyncio.Event()})
    root = MultiService("root", a, b, strategy="one_for_all")
    starting = asyncio.create_task(root.lifecycle.bring_up())
    await b.entered.wait()
    a.fail()
    await asyncio.sleep(10)
    assert diary.of("start") == ["a", "b"]
    b.holds.pop("start").set()
    await starting
    await diary.until("run a")
    assert diary.of("stop") == ["b", "a"]
    assert diary.of("start") == ["a", "b", "a", "b"]
    await root.lifecycle.take_down()


async def test_a_group_whose_parent_does_not_start_is_given_up(diary: Diary) -> None:
    """What waits for the start to end is not restarted when the start has failed."""
    (a,) = bodies(diary, "a")
    b = Probe("b", diary, holds={"start": asyncio.Event()}, fails={"start": Broken("no")})
    root = MultiService("root", a, b, strategy="one_for_all")
    starting = asyncio.create_task(root.lifecycle.bring_up())
    await b.entered.wait()
    a.fail()
    await diary.until("ran a")
    b.holds["start"].set()
    with pytest.raises(ServiceFailed, match="service b failed in start"):
        await starting
    await asyncio.sleep(100)
    assert diary.of("start") == ["a", "b"]
    assert diary.of("stop") == ["a"]


async def test_a_group_that_does_not_start_again_is_tried_again(diary: Diary) -> None:
    """A start that fails is that child's failure: its policy is asked, and all are restarted."""
    a, b = bodies(diary, "a", "b")
    async with MultiService("root", a, b, strategy="one_for_all"):
        await diary.until("run b")
        diary.clear()
        b.fails["start"] = Broken("not yet")
        a.fail()
        await diary.until("start b")
        b.fails.clear()
        await diary.until("run b")
        assert diary.of("stop") == ["b", "a", "a"]
        assert diary.of("start") == ["a", "b", "a", "b"]
        assert (a.restarts, b.restarts) == (1, 1)


async def test_a_plain_service_that_does_not_start_again_fails_the_group(diary: Diary) -> None:
    """Its policy is ``never``, so the failure goes up to the root."""
    (a,) = bodies(diary, "a")
    plain = Probe("plain", diary)
    root = MultiService("root", a, plain, strategy="one_for_all")
    await root.lifecycle.bring_up()
    await diary.until("run a")
    plain.fails["start"] = Broken("no")
    a.fail()
    await diary.until("start plain")
    assert (root.state, plain.state) == (State.FAILED, State.FAILED)
    await root.lifecycle.take_down()
    assert diary.of("stop") == ["plain", "a", "a"]


async def test_a_stop_while_the_group_is_restarted_is_final(diary: Diary) -> None:
    """Whatever the group was about to do is not done any more."""
    a, b = bodies(diary, "a", "b")
    root = MultiService("root", a, b, strategy="one_for_all")
    await root.lifecycle.bring_up()
    await diary.until("run b")
    a.fail()
    await asyncio.sleep(0.5)
    diary.clear()
    await root.lifecycle.take_down()
    await asyncio.sleep(100)
    assert diary == ["release b", "release a"]


@pytest.mark.parametrize("seconds", [0.5, 100])
async def test_a_child_may_be_removed_while_its_group_is_restarted(diary: Diary, seconds: float) -> None:
    """The others are started without it, or it is stopped again when it had been."""
    a, b, c = bodies(diary, "a", "b", "c")
    root = MultiService("root", a, b, c, strategy="one_for_all")
    async with root:
        await diary.until("run c")
        diary.clear()
        a.fail()
        await asyncio.sleep(seconds)
        await root.remove(b)
        await asyncio.sleep(100)
        assert diary.of("start") == (["a", "c"] if seconds < 1 else ["a", "b", "c"])
        assert diary.of("release") == ["b"]
        assert (b.restarting, b.state) == (False, State.STOPPED)


async def test_a_failed_child_that_is_removed_is_restarted_no_more(diary: Diary) -> None:
    """When it was the reason, there is nothing left to do."""
    a, b = bodies(diary, "a", "b")
    b.holds["stop"] = asyncio.Event()
    async with MultiService("root", a, b, strategy="rest_for_one") as root:
        await diary.until("run b")
        diary.clear()
        b.fail()
        removing = asyncio.create_task(root.remove(b))
        await b.entered.wait()
        b.holds.pop("stop").set()
        await removing
        await asyncio.sleep(100)
        assert diary.of("start") == []
        assert diary.of("stop") == diary.of("release") == ["b"]
        assert a.state is State.RUNNING


async def test_a_child_that_joins_is_waited_for_when_its_group_is_restarted(diary: Diary) -> None:
    """It is stopped with the others once it has started."""
    (a,) = bodies(diary, "a")
    root = MultiService("root", a, strategy="one_for_all")
    async with root:
        await diary.until("run a")
        late = Probe("late", diary, holds={"start": asyncio.Event()})
        adding = root.add(late)
        await late.entered.wait()
        a.fail()
        await asyncio.sleep(10)
        assert diary.of("stop") == []
        late.holds.pop("start").set()
        await adding
        await diary.until("run a")
        await asyncio.sleep(1)
        assert diary.of("stop") == ["late", "a"]
        assert diary.of("start") == ["a", "late", "a", "late"]
