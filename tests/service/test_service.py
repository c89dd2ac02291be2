import asyncio
from dataclasses import dataclass

import pytest

from tamed.errors import ServiceFailed, ServiceMisuse
from tamed.service.lifecycle import Lifecycle, State
from tamed.service.restart import Restart
from tamed.service.service import MultiService, Service
from tests.service.stand_ins import Body, Broken, Diary, Probe

pytestmark = pytest.mark.anyio


class Bare(Service):
    """A service that neither calls up to its base class's constructor nor takes a name."""

    def __init__(self) -> None:
        self.states: list[State] = []

    async def prepare(self) -> None:
        self.states.append(self.state)

    async def start(self) -> None:
        self.states.append(self.state)

    async def run(self) -> None:
        self.states.append(self.state)
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.states.append(self.state)

    async def release(self) -> None:
        self.states.append(self.state)


async def test_hooks_see_the_states_without_a_call_to_the_base_class() -> None:
    """A subclass that forgets ``super().__init__()`` goes through all states all the same."""
    service = Bare()
    async with service:
        await asyncio.sleep(0)  # the body begins
    assert service.states == [State.IDLE, State.STARTING, State.RUNNING, State.STOPPING, State.STOPPED]
    assert service.state is State.STOPPED


async def test_a_bare_service_goes_through_the_states() -> None:
    """A service without hooks is prepared, started, stopped and released like any other."""
    service, states = Service("bare"), []
    for step in (Lifecycle.prepare, Lifecycle.start, Lifecycle.stop, Lifecycle.release):
        await step(service.lifecycle)
        states.append(service.state)
    assert states == [State.PREPARED, State.RUNNING, State.STOPPED, State.STOPPED]


async def test_each_hook_is_called_once_and_in_order(diary: Diary) -> None:
    """Prepare and release, start and stop come in pairs, around the body."""
    async with Body("one", diary):
        await asyncio.sleep(0)
    assert diary == ["prepare one", "start one", "run one", "ran one", "stop one", "release one"]


def test_a_name_comes_from_the_class_if_none_is_given() -> None:
    """The default name is the class's, in words."""

    class _HTTPPoetryServer(Service): ...

    assert _HTTPPoetryServer().default_name() == "httppoetry-server"
    assert MultiService().default_name() == "multi-service"
    assert MultiService().full_name == "multi-service"


def test_a_path_leads_from_below_the_root_to_the_service() -> None:
    """Paths leave the root out, because it is in all of them; a root's own is its name."""
    leaf = Service("leaf")
    group = MultiService("group", leaf)
    root = MultiService("root", group)
    assert [service.full_name for service in root.walk()] == ["root", "group", "group/leaf"]
    assert leaf.root_service is root
    assert (root.children, leaf.children) == ((group,), ())


def test_a_service_shows_its_path_and_state() -> None:
    """The representation is for messages."""
    assert repr(Service("one")) == "<Service one idle>"


def test_there_is_no_summary_unless_a_service_gives_one() -> None:
    """The summary is empty by default."""
    assert Service("one").summary == ""


def test_settings_may_be_given_or_stand_in_the_class() -> None:
    """A timeout of None is a setting, and is told from one that was not given."""

    class Patient(Service):
        start_timeout = 5.0
        restart = Restart("always")

    assert (Patient().start_timeout, Patient().stop_timeout) == (5.0, 30.0)
    given = Patient("p", restart=Restart("never"), start_timeout=None, stop_timeout=1.0)
    assert given.start_timeout is None
    assert given.stop_timeout == 1.0
    assert given.restart.when == "never"
    assert Patient().restart.when == "always"


@pytest.mark.parametrize("hook", ["prepare", "start", "run", "stop", "release", "check"])
def test_a_hook_must_be_a_coroutine_function(hook: str) -> None:
    """A hook that is a plain function is refused with its class, also if it comes from a mixin."""
    mixin = type("Mixin", (), {hook: lambda _: None})
    with pytest.raises(TypeError, match=rf"Wrong\.{hook} must be a coroutine function: write 'async def"):
        type("Wrong", (mixin, Service), {})


@pytest.mark.parametrize("name", ["strat", "tsart", "rnu", "sotp", "relase", "prepar", "chekc"])
def test_a_misspelt_hook_is_refused(name: str) -> None:
    """A hook of another name would never be called, so its class is refused; a similar word is not."""

    async def hook(_: object) -> None:
        return None

    with pytest.raises(TypeError, match=rf"Wrong\.{name} is not a hook: did you mean '\w+'\?"):
        type("Wrong", (Service,), {name: hook})
    type("Right", (Service,), {"stat": hook, "post": hook, "prepared": hook, "runs": hook})


async def test_services_may_be_dataclasses(diary: Diary) -> None:
    """Dataclasses are equal when their fields are and have no hash; services are told apart all the same."""

    @dataclass
    class Poem(Service):
        title: str
        restart = Restart("on-failure")

        async def run(self) -> None:
            if self.restarts == 0:
                raise Broken(self.title)
            again.set()
            await asyncio.Event().wait()

    again = asyncio.Event()
    one, two, three = Poem("Ecstasy"), Poem("Ecstasy"), Poem("Ecstasy")
    parent = MultiService("poems", one, two, strategy="rest_for_one")
    async with parent:
        await again.wait()
        await parent.remove(two)
        assert list(parent) == [one]
        assert next(iter(parent)) is one
        assert (one in parent, two in parent, "poem" in parent) == (True, False, True)
        await parent.add(three)
        assert three.parent is parent


async def test_a_prepare_that_fails_is_not_released(diary: Diary) -> None:
    """Release is for a prepare that returned."""
    service = Probe("one", diary, fails={"prepare": Broken("in use")})
    with pytest.raises(ServiceFailed, match="service one failed in prepare: Broken: in use") as caught:
        await service.lifecycle.bring_up()
    assert diary == ["prepare one"]
    assert service.state is State.FAILED
    assert caught.value.__cause__ is caught.value.cause


async def test_a_start_that_fails_is_not_stopped_but_released(diary: Diary) -> None:
    """Stop is for a start that returned."""
    service = Probe("one", diary, fails={"start": Broken("no")})
    with pytest.raises(ServiceFailed):
        await service.lifecycle.bring_up()
    assert diary == ["prepare one", "start one", "release one"]
    assert service.state is State.FAILED


async def test_a_service_that_failed_can_be_started_again(diary: Diary) -> None:
    """After a failure a service is as good as new."""
    service = Probe("one", diary, fails={"start": Broken("not yet")})
    with pytest.raises(ServiceFailed):
        await service.lifecycle.bring_up()
    service.fails.clear()
    async with service:
        assert service.state is State.RUNNING


async def test_what_was_never_prepared_is_not_released(diary: Diary) -> None:
    """Taking down what is not up does nothing."""
    service = Probe("one", diary)
    assert await service.lifecycle.take_down() == []
    assert diary == []


async def test_a_release_that_fails_is_reported_and_collected(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """Release goes on with the others, as stop does."""
    parent = MultiService("parent", Probe("one", diary), Probe("two", diary, fails={"release": Broken("no")}))
    await parent.lifecycle.bring_up()
    (failure,) = await parent.lifecycle.take_down()
    assert (failure.path, failure.phase) == ("two", "release")
    assert caplog.messages == ["service two failed in release: Broken: no"]
    assert diary.of("release") == ["two", "one"]


async def test_a_plain_service_that_waits_in_its_hooks_ends_in_the_right_state(diary: Diary) -> None:
    """A hook that suspends is awaited, and the state is that of a service whose hooks do not."""

    class Slow(Probe):
        async def _do(self, phase: str) -> None:
            await asyncio.sleep(0)
            await super()._do(phase)

    slow = Slow("slow", diary)
    bad = Slow("bad", diary, fails={"stop": Broken("no")})
    parent = MultiService("parent", slow, bad)
    await parent.lifecycle.bring_up()
    assert [service.state for service in parent] == [State.RUNNING] * 2
    await parent.lifecycle.take_down()
    assert [service.state for service in parent] == [State.STOPPED, State.FAILED]
    assert parent.state is State.FAILED


async def test_a_started_service_is_not_started_again(diary: Diary) -> None:
    """Starting what is up is misuse, and does it no harm."""
    service = Probe("one", diary)
    async with service:
        diary.clear()
        for step in (Lifecycle.bring_up, Lifecycle.start):
            with pytest.raises(ServiceMisuse, match="cannot start service one: it is running already"):
                await step(service.lifecycle)
        await service.lifecycle.prepare()
        assert (diary, service.state) == ([], State.RUNNING)


async def test_a_started_service_is_not_released(diary: Diary) -> None:
    """Releasing what is not stopped is misuse."""
    async with Probe("one", diary) as service:
        with pytest.raises(ServiceMisuse, match="cannot release service one: it is running; stop it first"):
            await service.lifecycle.release()


async def test_a_service_may_be_prepared_before_it_is_entered(diary: Diary) -> None:
    """A runner prepares, drops its privileges, and enters: nothing is prepared twice."""
    service = Probe("one", diary)
    await service.lifecycle.prepare()
    await service.lifecycle.prepare()
    async with service:
        pass
    assert diary == ["prepare one", "start one", "stop one", "release one"]


async def test_a_service_that_is_part_of_another_cannot_be_entered() -> None:
    """``async with`` is for roots."""
    child = Service("child")
    MultiService("parent", child)
    with pytest.raises(ServiceMisuse, match="cannot start service child by itself: it is a part of parent"):
        async with child:
            pass


async def test_the_body_of_async_with_is_cancelled_when_the_service_fails(diary: Diary) -> None:
    """The failure is raised, and the cancellation that brought it is taken back."""
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(ServiceFailed, match="service one failed in run: Broken: one broke"):
        await Body("one", diary).fail_inside()
    assert task.cancelling() == 0
    assert diary.of("release") == ["one"]


async def test_a_failure_is_raised_even_if_the_body_of_async_with_ends_well(diary: Diary) -> None:
    """A body that catches its cancellation does not hide what happened."""
    service = Body("one", diary)

    async def use() -> None:
        async with service:
            await asyncio.sleep(0)
            service.fail()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()

    with pytest.raises(ServiceFailed, match="one broke"):
        await use()


async def test_what_the_body_of_async_with_raises_comes_first(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """The body's own exception is raised; the service's failure has been logged."""
    service = Body("one", diary)

    async def use() -> None:
        async with service:
            await asyncio.sleep(0)
            service.fail()
            try:
                await asyncio.Event().wait()
            finally:
                raise LookupError

    with pytest.raises(LookupError):
        await use()
    assert caplog.messages == ["service one failed in run: Broken: one broke"]


async def test_a_cancellation_from_outside_stays_one(diary: Diary) -> None:
    """When the task is cancelled too, that is what it ends with."""
    service = Body("one", diary)

    async def use() -> None:
        async with service:
            await asyncio.sleep(0)
            service.fail()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(use())
    assert diary.of("stop") == ["one"]


async def test_a_failed_stop_is_raised_at_the_end_of_async_with(diary: Diary) -> None:
    """When all else went well, what failed on the way down is raised."""
    with pytest.raises(ServiceFailed, match="service one failed in stop"):
        async with Probe("one", diary, fails={"stop": Broken("no")}):
            pass


async def test_a_failed_stop_does_not_replace_what_the_body_raised(diary: Diary) -> None:
    """The first exception is the one that tells."""
    with pytest.raises(LookupError):
        async with Probe("one", diary, fails={"stop": Broken("no")}):
            raise LookupError


async def test_async_with_may_stand_in_a_task_that_is_being_cancelled(diary: Diary) -> None:
    """Cleaning up with a service that fails works: only our own cancellation is taken back."""
    service = Body("one", diary)
    caught: list[ServiceFailed] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await service.fail_inside()
            except ServiceFailed as failure:
                caught.append(failure)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [failure.path for failure in caught] == ["one"]


async def test_a_body_that_ends_is_done(diary: Diary) -> None:
    """Under the policy ``never``, and ``on-failure``, a body may end without harm."""
    service = Body("one", diary)
    async with service:
        await asyncio.sleep(0)
        service.end()
        await asyncio.sleep(0)
        assert service.state is State.RUNNING
    assert diary.of("stop") == ["one"]


async def test_a_body_that_lets_a_cancellation_through_has_failed(diary: Diary) -> None:
    """A service is not dead in silence because something it waited for was cancelled."""
    service = Body("one", diary)

    async def use() -> None:
        async with service:
            service.told.cancel()
            await asyncio.Event().wait()

    with pytest.raises(ServiceFailed, match="a task or future that it awaited was cancelled"):
        await use()


@pytest.mark.parametrize("phase", ["prepare", "start"])
@pytest.mark.parametrize("waits", [False, True])
async def test_a_hook_that_lets_a_cancellation_through_has_failed(
    diary: Diary, phase: str, waits: bool
) -> None:
    """What a hook waited for was cancelled, and not the start."""

    class Careless(Probe):
        async def _do(self, phase: str) -> None:
            if waits:
                await asyncio.sleep(0)
            await super()._do(phase)

    with pytest.raises(
        ServiceFailed, match=f"one failed in {phase}: a task or future that it awaited was cancelled"
    ):
        await Careless("one", diary, fails={phase: asyncio.CancelledError()}).lifecycle.bring_up()


async def test_a_failure_while_the_body_is_ended_is_reported(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """What a body raises when it is cancelled is collected like what a hook raises."""

    class Bad(Service):
        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise Broken("half done")

    service = Bad("bad")
    await service.lifecycle.bring_up()
    await asyncio.sleep(0)
    (failure,) = await service.lifecycle.take_down()
    assert failure.phase == "run"
    assert caplog.messages == ["service bad failed in run: Broken: half done"]
    assert service.state is State.FAILED


async def test_a_body_that_has_not_begun_is_not_begun_by_a_stop(diary: Diary) -> None:
    """A service that is stopped at once has a body that never ran."""
    async with Body("one", diary):
        pass
    assert diary == ["prepare one", "start one", "stop one", "release one"]


async def test_a_body_may_have_its_own_service_stopped(diary: Diary) -> None:
    """It is not cancelled by that, and goes on afterwards."""
    done = asyncio.Event()

    class Leaving(Probe):
        async def run(self) -> None:
            await self.lifecycle.take_down()
            diary.append("after all")
            done.set()

    await Leaving("one", diary).lifecycle.bring_up()
    await done.wait()
    assert diary == ["prepare one", "start one", "stop one", "release one", "after all"]


async def test_a_body_that_fails_after_it_had_its_service_stopped_is_reported(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """There is nothing left to restart, but the failure does not vanish."""

    class Leaving(Probe):
        async def run(self) -> None:
            await self.lifecycle.take_down()
            raise Broken("in the end")

    await Leaving("one", diary).lifecycle.bring_up()
    await diary.until("release one")
    await asyncio.sleep(0)
    assert caplog.messages == ["service one failed in run: Broken: in the end"]


def test_a_service_may_be_something_else_too() -> None:
    """Neither a second base nor a property in the place of an attribute keeps a class from being one."""

    class Table(Service, dict[str, int]): ...

    class Named(Service):
        @property
        def name(self) -> str:  # type: ignore[override]
            return "always"

    parent = MultiService("parent", Table("table"), Named())
    assert [child.full_name for child in parent] == ["table", "always"]
