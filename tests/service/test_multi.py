import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tamed.errors import ServiceFailed, ServiceMisuse, TamedError
from tamed.service.lifecycle import Lifecycle, State
from tamed.service.service import MultiService, Only, Service
from tests.service.stand_ins import Body, Broken, Diary, Probe

pytestmark = pytest.mark.anyio


async def test_own_hooks_surround_those_of_the_children(diary: Diary) -> None:
    """A multi-service acquires first, and gives up last, what its children use."""

    class Pool(MultiService):
        async def prepare(self) -> None:
            diary.append("prepare pool")

        async def start(self) -> None:
            diary.append("start pool")

        async def stop(self) -> None:
            diary.append("stop pool")

        async def release(self) -> None:
            diary.append("release pool")

    async with Pool("pool", Probe("one", diary), Probe("two", diary)):
        pass
    for phase in ("prepare", "start"):
        assert diary.of(phase) == ["pool", "one", "two"]
    for phase in ("stop", "release"):
        assert diary.of(phase) == ["two", "one", "pool"]


async def test_all_is_prepared_before_any_starts(diary: Diary) -> None:
    """An address in use is found before anything ran."""
    async with MultiService("root", Probe("one", diary), MultiService("group", Probe("two", diary))):
        assert diary == ["prepare one", "prepare two", "start one", "start two"]


async def test_when_a_child_cannot_be_prepared_those_before_it_are_released(diary: Diary) -> None:
    """A failed prepare undoes itself, and nothing is started."""
    group = MultiService("group", Probe("two", diary, fails={"prepare": Broken("in use")}))
    root = MultiService("root", Probe("one", diary), group, Probe("three", diary))
    with pytest.raises(ServiceFailed, match="service group/two failed in prepare"):
        await root.lifecycle.bring_up()
    assert diary == ["prepare one", "prepare two", "release one"]
    assert (root.state, group.state) == (State.FAILED, State.FAILED)


async def test_what_is_up_already_is_not_brought_up_again(diary: Diary) -> None:
    """A multi-service may prepare, or start, a child of its own in its hooks."""

    class Pool(MultiService):
        async def prepare(self) -> None:
            await self["one"].lifecycle.prepare()

        async def start(self) -> None:
            await self["two"].lifecycle.start()

    async with Pool("pool", Probe("one", diary), Probe("two", diary)):
        assert diary == ["prepare one", "prepare two", "start two", "start one"]


async def test_after_a_failed_start_nothing_is_left_started_or_prepared(diary: Diary) -> None:
    """After a failed start, the state of each service shows what was done with it."""
    one, two, three = (
        Probe("one", diary),
        Probe("two", diary, fails={"start": Broken("no")}),
        Service("three"),
    )
    root = MultiService("root", one, MultiService("group", two), three)
    with pytest.raises(ServiceFailed, match="service group/two failed in start"):
        await root.lifecycle.bring_up()
    assert [service.state for service in (one, two, three)] == [State.STOPPED, State.FAILED, State.STOPPED]
    assert root.state is State.FAILED


async def test_a_collection_of_services_by_name_and_in_order() -> None:
    """Children are had by name, counted, and iterated over in the order in which they were added."""
    one, two = Service("one"), Service("two")
    parent = MultiService("parent", one, two)
    assert (parent["one"], list(parent), len(parent)) == (one, [one, two], 2)
    assert ("one" in parent, two in parent, "three" in parent, object() in parent) == (
        True,
        True,
        False,
        False,
    )
    with pytest.raises(KeyError):
        parent["three"]


def test_children_without_a_name_are_numbered() -> None:
    """Two services of a class may stand beside each other without names."""
    parent = MultiService("parent", Service(), Service("service-3"), Service(), Service())
    assert [child.name for child in parent] == ["service", "service-3", "service-2", "service-4"]


def test_a_strategy_must_be_known() -> None:
    """A wrong strategy is refused with those there are."""
    with pytest.raises(ServiceMisuse, match="strategy 'all': expected one of one_for_one, one_for_all, rest"):
        MultiService("parent", strategy="all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("child", "why"),
    [
        ("text", "it is a str, not a service"),
        (None, "it is None, not a service"),
        (Service, r"it is a class; create an instance: Service\(\.\.\.\)"),
    ],
    ids=["text", "none", "class"],
)
def test_a_child_is_a_service(child: Any, why: str) -> None:
    """An object that is not a service is refused; the message has its type."""
    with pytest.raises(ServiceMisuse, match=f"cannot add .* to parent: {why}"):
        MultiService("parent", child)
    with pytest.raises(ServiceMisuse, match=f"Only.*: {why}"):
        Only(child)


def test_a_name_has_no_slash() -> None:
    """It separates the names in a path: ``parent/a/b`` would be two services."""
    with pytest.raises(ServiceMisuse, match=r"cannot add 'a/b' to parent: a slash separates .*; use another"):
        MultiService("parent", Service("a/b"))


def test_a_name_is_a_text() -> None:
    """A service in the place of the name means that the name was forgotten."""
    name: Any = Service("child")
    with pytest.raises(ServiceMisuse, match=r"the name is a service, not a text; write MultiService\('NAME'"):
        MultiService(name)


def test_a_name_is_taken_once() -> None:
    """Names are unique within a parent, and the message says who has it."""
    parent = MultiService("parent", Service("one"))
    with pytest.raises(ServiceMisuse, match="cannot add 'one' to parent: it has a child of that name, <Serv"):
        parent.add(Service("one"))
    assert len(parent) == 1


def test_a_service_has_one_parent() -> None:
    """A child of another parent is refused."""
    child = Service("child")
    MultiService("first", child)
    with pytest.raises(ServiceMisuse, match="cannot add 'child' to second: it is a child of first already"):
        MultiService("second", child)


def test_a_service_is_not_below_itself() -> None:
    """A service cannot be its own descendant."""
    root = MultiService("root")
    inner = MultiService("inner")
    root.add(inner)
    for parent in (root, inner):
        with pytest.raises(ServiceMisuse, match="a service cannot be below itself"):
            parent.add(root)


async def test_a_service_that_runs_by_itself_is_not_added() -> None:
    """Such a service must be stopped before it is added."""
    async with Service("one") as one:
        with pytest.raises(ServiceMisuse, match="cannot add 'one' to p: it is running on its own; stop it"):
            MultiService("p", one)
    MultiService("p", one)


def test_a_subclass_need_not_call_up() -> None:
    """A multi-service works without its base class's constructor."""

    class Poems(MultiService):
        def __init__(self) -> None:
            self.add(Service("one"))

    assert [child.full_name for child in Poems()] == ["one"]


async def test_children_may_be_added_in_the_hooks(diary: Diary) -> None:
    """What the prepare hook adds is prepared, and what the start hook adds is prepared and started."""

    class Pool(MultiService):
        async def prepare(self) -> None:
            self.add(Probe("early", diary))

        async def start(self) -> None:
            self.add(Probe("late", diary))

    async with Pool("pool"):
        assert diary == ["prepare early", "start early", "prepare late", "start late"]
    assert diary.of("release") == ["late", "early"]


async def test_a_child_added_to_a_running_parent_is_started(diary: Diary) -> None:
    """What `add` returns is done when the child runs."""
    async with MultiService("parent") as parent:
        child = Probe("child", diary)
        await parent.add(child)
        assert child.state is State.RUNNING
    assert diary == ["prepare child", "start child", "stop child", "release child"]


async def test_a_child_added_to_an_idle_parent_waits_for_it(diary: Diary) -> None:
    """There is nothing to wait for, so awaiting what `add` returns takes no time, and needs no event loop."""
    parent = MultiService("parent")
    child = Probe("child", diary)
    await parent.add(child)
    assert child.state is State.IDLE


async def test_what_a_child_fails_with_is_raised_to_whoever_awaits_the_adding(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """It is taken out again, its name is free, and nothing is logged."""
    async with MultiService("parent") as parent:
        child = Probe("child", diary, fails={"start": Broken("no")})
        with pytest.raises(ServiceFailed, match="service child failed in start"):
            await parent.add(child)
        assert (list(parent), child.parent) == ([], None)
        assert diary.of("release") == ["child"]
        child.fails.clear()
        await parent.add(child)
        assert child.state is State.RUNNING
    assert caplog.messages == []


async def test_what_a_child_fails_with_is_logged_if_nobody_awaits_the_adding(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """A service that did not start does not vanish in silence."""
    async with MultiService("parent") as parent:
        parent.add(Probe("child", diary, fails={"start": Broken("no")}))
        while len(parent):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    assert caplog.messages == [
        "a service added to parent did not start: service child failed in start: Broken: no"
    ]


async def test_cancelling_the_adding_takes_the_child_out(diary: Diary) -> None:
    """Cancelling the awaiting task cancels the addition, as with any coroutine."""
    async with MultiService("parent") as parent:
        child = Probe("child", diary, holds={"start": asyncio.Event()})

        async def add() -> None:
            await parent.add(child)

        adding = asyncio.create_task(add())
        await child.entered.wait()
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert list(parent) == []
    assert diary == ["prepare child", "start child", "release child"]


@pytest.mark.parametrize("begun", [True, False])
async def test_a_parent_that_stops_gives_up_what_is_being_added(diary: Diary, begun: bool) -> None:
    """The child is rolled back and removed; the awaiting task gets the reason."""
    parent = MultiService("parent")
    await parent.lifecycle.bring_up()
    child = Probe("child", diary, holds={"start": asyncio.Event()})
    adding = parent.add(child)
    if begun:
        await child.entered.wait()
    await parent.lifecycle.take_down()
    with pytest.raises(TamedError, match="service child was not started: it was stopped first"):
        await adding
    assert diary == (["prepare child", "start child", "release child"] if begun else [])
    assert (list(parent), child.parent) == ([], None)


async def test_a_stopping_parent_takes_no_children(diary: Diary) -> None:
    """A service added while its parent stops is refused."""
    gate = asyncio.Event()
    one = Probe("one", diary, holds={"stop": gate})
    parent = MultiService("parent", one)
    await parent.lifecycle.bring_up()
    stopping = asyncio.create_task(parent.lifecycle.take_down())
    await one.entered.wait()
    with pytest.raises(ServiceMisuse, match="cannot add 'two' to parent: parent is stopping"):
        parent.add(Service("two"))
    gate.set()
    await stopping


async def test_removing_a_child_stops_and_releases_it(diary: Diary) -> None:
    """It may be added elsewhere afterwards."""
    child = Probe("child", diary)
    async with MultiService("parent", child) as parent:
        await parent.remove(child)
        assert diary == ["prepare child", "start child", "stop child", "release child"]
        assert (list(parent), child.parent, "child" in parent) == ([], None, False)
    MultiService("other", child)


async def test_a_child_is_removed_from_an_idle_parent() -> None:
    """There is nothing to stop then."""
    child = Service("child")
    parent = MultiService("parent", child)
    await parent.remove(child)
    assert list(parent) == []


async def test_only_a_child_can_be_removed() -> None:
    """Removing what is not there is misuse."""
    with pytest.raises(
        ServiceMisuse, match="cannot remove 'child' from parent: it is not a child of that service"
    ):
        await MultiService("parent").remove(Service("child"))


@pytest.mark.parametrize("phase", ["start", "stop"])
async def test_no_child_is_removed_while_the_parent_starts_or_stops(diary: Diary, phase: str) -> None:
    """A child is not removed while its parent starts or stops it."""

    class Remover(Probe):
        async def _do(self, now: str) -> None:
            await super()._do(now)
            if now == phase and self.parent is not None:
                await self.parent.remove(self)

    parent = MultiService("parent", Remover("remover", diary))
    failures = []
    try:
        await parent.lifecycle.bring_up()
    except ServiceFailed as failure:
        failures.append(failure)
    failures += await parent.lifecycle.take_down()
    assert [str(failure.cause) for failure in failures] == [
        f"cannot remove remover: parent is {phase}{'p' * (phase == 'stop')}ing"
    ]


async def test_a_child_that_is_being_added_can_be_removed(diary: Diary) -> None:
    """Its start is rolled back."""
    async with MultiService("parent") as parent:
        child = Probe("child", diary, holds={"start": asyncio.Event()})
        adding = parent.add(child)
        await child.entered.wait()
        await parent.remove(child)
        with pytest.raises(TamedError, match="it was stopped first"):
            await adding
        assert list(parent) == []
    assert diary == ["prepare child", "start child", "release child"]


async def test_a_child_that_has_just_failed_to_join_can_be_removed_and_added_anew(diary: Diary) -> None:
    """Only the first removal removes it; its second addition is not mistaken for the first."""
    again = asyncio.Event()

    class Child(Probe):
        async def release(self) -> None:
            await super().release()
            if not tries:
                tries.append(asyncio.create_task(try_again()))

    async def try_again() -> None:
        await parent.remove(child)
        child.fails.clear()
        await parent.add(child)
        again.set()

    tries: list[asyncio.Task[None]] = []
    child = Child("child", diary, fails={"start": Broken("no")})
    async with MultiService("parent") as parent:
        parent.add(child)
        await again.wait()
        assert list(parent) == [child]
        assert child.state is State.RUNNING


async def test_a_child_that_joins_may_be_given_up_by_two(diary: Diary) -> None:
    """A parent that stops and a concurrent removal wait for the same rollback."""
    gate = asyncio.Event()
    child = Probe("child", diary, holds={"start": asyncio.Event(), "release": gate})
    parent = MultiService("parent")
    await parent.lifecycle.bring_up()
    parent.add(child)
    await child.entered.wait()
    removing = asyncio.create_task(parent.remove(child))
    await diary.until("release child")
    stopping = asyncio.create_task(parent.lifecycle.take_down())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(removing, stopping)
    assert diary == ["prepare child", "start child", "release child"]


async def test_a_child_that_two_remove_is_stopped_once(diary: Diary) -> None:
    """The second waits for the first."""
    gate = asyncio.Event()
    child = Probe("child", diary, holds={"stop": gate})
    async with MultiService("parent", child) as parent:
        first = asyncio.create_task(parent.remove(child))
        await child.entered.wait()
        second = asyncio.create_task(parent.remove(child))
        gate.set()
        await asyncio.gather(first, second)
    assert diary.of("stop") == diary.of("release") == ["child"]


@pytest.mark.parametrize("kind", [Probe, Body])
async def test_a_parent_that_stops_waits_for_a_child_that_is_being_removed(
    diary: Diary, kind: type[Probe]
) -> None:
    """The order of stopping holds, and the child is stopped once."""
    gate = asyncio.Event()
    one, two = Probe("one", diary), kind("two", diary, holds={"stop": gate})
    parent = MultiService("parent", one, two)
    await parent.lifecycle.bring_up()
    removing = asyncio.create_task(parent.remove(two))
    await two.entered.wait()
    stopping = asyncio.create_task(parent.lifecycle.take_down())
    await asyncio.sleep(0)
    assert parent.state is State.STOPPING
    assert diary.of("stop") == ["two"]
    gate.set()
    await asyncio.gather(removing, stopping)
    assert diary.of("stop") == diary.of("release") == ["two", "one"]


@pytest.mark.parametrize("step", [Lifecycle.start, Lifecycle.release])
async def test_a_stopped_parent_waits_for_a_child_that_is_being_removed(
    diary: Diary, step: Callable[[Lifecycle], Coroutine[Any, Any, object]]
) -> None:
    """Neither is it started again with that child, nor released before it."""

    class Group(MultiService):
        async def start(self) -> None:
            diary.append("start group")

        async def release(self) -> None:
            diary.append("release group")

    child = Probe("child", diary)
    group = Group("group", child)
    root = MultiService("root", group)
    await root.lifecycle.bring_up()
    await root.lifecycle.stop()
    diary.clear()
    gate = child.holds["release"] = asyncio.Event()
    removing = asyncio.create_task(group.remove(child))
    await child.entered.wait()
    stepping = asyncio.create_task(step(root.lifecycle))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert diary == ["release child"]
    gate.set()
    await asyncio.gather(removing, stepping)
    assert diary == ["release child", f"{step.__name__} group"]
    assert list(group) == []
    await root.lifecycle.take_down()


async def test_a_body_may_remove_its_own_service(diary: Diary) -> None:
    """Services that are there for a while take themselves out when they are done."""
    done = asyncio.Event()

    class Visitor(Probe):
        async def run(self) -> None:
            assert self.parent is not None
            await self.parent.remove(self)
            done.set()

    async with MultiService("parent", Visitor("visitor", diary)) as parent:
        await done.wait()
        assert list(parent) == []
    assert diary == ["prepare visitor", "start visitor", "stop visitor", "release visitor"]


async def test_a_removed_child_is_out_even_if_its_stop_fails(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is logged."""
    child = Probe("child", diary, fails={"stop": Broken("no")})
    async with MultiService("parent", child) as parent:
        await parent.remove(child)
        assert list(parent) == []
    assert caplog.messages == ["service child failed in stop: Broken: no"]
