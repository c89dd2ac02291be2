import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tamed.errors import DeadlinePassed, ServiceFailed
from tamed.service.generator import GeneratorService, service
from tamed.service.lifecycle import State
from tamed.service.service import MultiService, Service
from tests.service.stand_ins import Broken, Diary

pytestmark = pytest.mark.anyio


@service
async def poem(diary: Diary, text: str = "ecstasy") -> AsyncGenerator[str, None]:
    """A poem."""
    diary.append("start poem")
    yield text
    diary.append("stop poem")


async def test_a_generator_is_set_up_and_torn_down(diary: Diary) -> None:
    """The value is there while it runs."""
    one = poem(diary, text="science")
    async with one:
        assert one.value == "science"
        assert diary == ["start poem"]
    assert diary == ["start poem", "stop poem"]


def test_a_service_has_its_name_from_the_function(diary: Diary) -> None:
    """Two of them may stand beside each other, numbered."""

    @service
    async def _postgres_pool() -> AsyncGenerator[None, None]:
        yield

    parent = MultiService("parent", poem(diary), poem(diary), _postgres_pool())
    assert [child.name for child in parent] == ["poem", "poem-2", "postgres-pool"]
    assert poem.__doc__ == "A poem."


async def test_a_generator_service_can_be_started_again(diary: Diary) -> None:
    """Each start runs a new generator."""
    one = poem(diary)
    for _ in range(2):
        async with one:
            pass
    assert diary == ["start poem", "stop poem"] * 2


def test_only_an_async_generator_function_makes_services() -> None:
    """A function without a ``yield`` is refused when it is decorated."""

    async def no_yield() -> None: ...

    with pytest.raises(TypeError, match="no_yield is not a service: write 'async def' with one 'yield'"):
        service(no_yield)  # type: ignore[arg-type]


async def use_until(one: Service, event: asyncio.Event) -> None:
    """Run a service, set an event, and wait."""
    async with one:
        event.set()
        await asyncio.Event().wait()


async def failing_setup() -> AsyncGenerator[None, None]:
    """Raise before the ``yield``."""
    raise Broken("no database")
    yield


async def no_yield() -> AsyncGenerator[None, None]:
    """End before the ``yield``."""
    if False:
        yield


async def setup_exits() -> AsyncGenerator[None, None]:
    """Exit before the ``yield``."""
    raise SystemExit(3)
    yield


@pytest.mark.parametrize(
    ("generator", "reason"),
    [
        (failing_setup, "Broken: no database"),
        (no_yield, "RuntimeError: generator didn't yield"),
        (setup_exits, "SystemExit: 3"),
    ],
)
async def test_a_setup_that_does_not_reach_the_yield_fails_the_start(generator: Any, reason: str) -> None:
    """Whatever it raises is the failure's cause."""
    with pytest.raises(ServiceFailed, match=f"in start: {reason}"):
        await GeneratorService(generator).lifecycle.bring_up()


async def failing_teardown() -> AsyncGenerator[None, None]:
    """Raise after the ``yield``."""
    yield
    raise Broken("connection lost")


async def two_yields() -> AsyncGenerator[None, None]:
    """Yield twice."""
    yield
    yield


async def teardown_exits() -> AsyncGenerator[None, None]:
    """Exit after the ``yield``."""
    yield
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("generator", "reason"),
    [
        (failing_teardown, "Broken: connection lost"),
        (two_yields, "RuntimeError: generator didn't stop"),
        (teardown_exits, "SystemExit: 3"),
    ],
)
async def test_a_teardown_that_raises_fails_the_stop(generator: Any, reason: str) -> None:
    """It is reported like the failure of any stop hook."""
    one = GeneratorService(generator, "one")
    await one.lifecycle.bring_up()
    (failure,) = await one.lifecycle.take_down()
    assert str(failure) == f"service one failed in stop: {reason}"


async def test_a_task_group_may_stand_around_the_yield(diary: Diary) -> None:
    """The group is entered and left in one task, also if other tasks start and stop the service."""

    @service
    async def workers() -> AsyncGenerator[None, None]:
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(asyncio.Event().wait())
            yield
            worker.cancel()
        diary.append("left")

    async with MultiService("root") as root:
        group = workers()
        await asyncio.create_task(asyncio.wait_for(root.add(group), None))
        await asyncio.create_task(root.remove(group))
        assert diary == ["left"]


@service
async def workers(fail: asyncio.Event) -> AsyncGenerator[None, None]:
    """Fail by a task of the service."""

    async def work() -> None:
        await fail.wait()
        raise Broken("worker")

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        yield


async def test_a_task_group_around_the_yield_that_fails_fails_the_service() -> None:
    """The service does not go on without its workers."""
    fail = asyncio.Event()
    with pytest.raises(ServiceFailed, match="service workers failed in run: Broken: worker") as caught:
        await use_until(workers(fail), fail)
    assert isinstance(caught.value.cause, ExceptionGroup)


async def test_a_failure_that_the_stop_finds_first_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """When the generator fails in the moment in which it is stopped, its stop has failed."""
    fail = asyncio.Event()
    one = workers(fail)
    await one.lifecycle.bring_up()
    await asyncio.sleep(0)
    fail.set()
    (failure,) = await one.lifecycle.take_down()
    assert (failure.phase, type(failure.cause)) == ("stop", ExceptionGroup)


async def test_a_generator_that_ends_by_itself_has_failed() -> None:
    """One that swallows its cancellation at the yield leaves a service without anything behind it."""
    give_up = asyncio.Event()

    @service
    async def workers() -> AsyncGenerator[None, None]:
        task = asyncio.current_task()
        assert task is not None
        waiting = asyncio.create_task(give_up.wait())
        waiting.add_done_callback(lambda _: task.cancel())
        with contextlib.suppress(asyncio.CancelledError):
            yield

    with pytest.raises(
        ServiceFailed, match="service workers failed in run: its generator ended without a stop"
    ):
        await use_until(workers(), give_up)


async def test_a_setup_that_is_cancelled_is_torn_down(diary: Diary) -> None:
    """What the setup has entered is left, in its own task."""
    entered = asyncio.Event()

    @service
    async def slow() -> AsyncGenerator[None, None]:
        try:
            entered.set()
            await asyncio.Event().wait()
            yield
        finally:
            diary.append("left")

    starting = asyncio.create_task(slow().lifecycle.bring_up())
    await entered.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert diary == ["left"]


async def test_a_setup_that_catches_its_cancellation_is_torn_down(diary: Diary) -> None:
    """A generator that goes on to its yield all the same is left there at once."""
    entered = asyncio.Event()

    @service
    async def stubborn() -> AsyncGenerator[None, None]:
        with contextlib.suppress(asyncio.CancelledError):
            entered.set()
            await asyncio.Event().wait()
        yield
        diary.append("left")

    starting = asyncio.create_task(stubborn().lifecycle.bring_up())
    await entered.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert diary == ["left"]


async def test_a_setup_that_fails_when_it_is_cancelled_has_failed() -> None:
    """As in any coroutine, what is raised on the way out comes first."""
    entered = asyncio.Event()

    @service
    async def bad() -> AsyncGenerator[None, None]:
        try:
            entered.set()
            await asyncio.Event().wait()
            yield
        finally:
            raise Broken("on the way out")

    starting = asyncio.create_task(bad().lifecycle.bring_up())
    await entered.wait()
    starting.cancel()
    with pytest.raises(ServiceFailed, match="service bad failed in start: Broken: on the way out"):
        await starting


async def test_a_teardown_has_the_deadline_of_a_stop(diary: Diary) -> None:
    """At the deadline the generator is cancelled where it waits."""

    @service
    async def slow() -> AsyncGenerator[None, None]:
        yield
        try:
            await asyncio.Event().wait()
        finally:
            diary.append("cut")

    one: Service = slow()
    one.stop_timeout = 0.001
    await one.lifecycle.bring_up()
    (failure,) = await one.lifecycle.take_down()
    assert isinstance(failure.cause, DeadlinePassed)
    assert diary == ["cut"]
    assert one.state is State.FAILED
