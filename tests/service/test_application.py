import asyncio

import pytest

from tamed.errors import ServiceFailed, status_of
from tamed.service.application import Application
from tamed.service.lifecycle import State
from tamed.service.service import MultiService, Service
from tests.service.stand_ins import Body, Broken, Diary, Probe

pytestmark = pytest.mark.anyio


async def test_the_first_exit_counts() -> None:
    """Later requests to exit are ignored."""
    async with Application("verse") as application:
        waiting = asyncio.create_task(application.wait())
        await asyncio.sleep(0)
        application.exit(3)
        application.exit(4)
        assert await waiting == 3


async def test_the_default_status_is_success() -> None:
    """``exit`` without a status gives status 0."""
    async with Application("verse") as application:
        application.exit()
        assert await application.wait() == 0


async def test_a_service_may_end_the_application_while_it_starts(diary: Diary) -> None:
    """The start goes on, and the wait is over at once."""

    class Hasty(Probe):
        async def start(self) -> None:
            await super().start()
            assert isinstance(self.root_service, Application)
            self.root_service.exit(5)

    application = Application("verse", Hasty("one", diary), Probe("two", diary))
    async with application:
        assert await application.wait() == 5
    assert diary.of("start") == ["one", "two"]


async def test_an_application_inside_another_ends_that() -> None:
    """There is one process, so there is one exit."""
    inner = Application("inner")
    async with Application("outer", MultiService("group", inner)) as outer:
        inner.exit(7)
        assert await outer.wait() == 7


async def test_an_application_inside_another_root_ends_itself() -> None:
    """A root service that is not an application has no exit status to pass on."""
    inner = Application("inner")
    async with MultiService("outer", inner):
        inner.exit(7)
        assert await inner.wait() == 7


async def test_a_failure_ends_the_wait(diary: Diary) -> None:
    """It is raised with the service's path and has the status of its cause."""
    body = Body("body", diary)
    application = Application("verse", body)
    await application.lifecycle.bring_up()
    body.fail(PermissionError(13, "no"))
    with pytest.raises(ServiceFailed) as caught:
        await application.wait()
    assert (caught.value.path, status_of(caught.value)) == ("body", 77)
    await application.lifecycle.take_down()


async def test_the_first_failure_counts(diary: Diary) -> None:
    """What fails after the application has failed is logged."""
    one, two = Body("one", diary), Body("two", diary)
    application = Application("verse", one, two)
    await application.lifecycle.bring_up()
    one.fail()
    two.fail()
    await diary.until("ran two")
    with pytest.raises(ServiceFailed, match="one broke"):
        await application.wait()
    await application.lifecycle.take_down()


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (9, 9), ("why", 1)])
async def test_a_body_that_exits_chooses_the_status(
    diary: Diary, code: str | int | None, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """``sys.exit`` in a service means the application, by the interpreter's own rule; it is no failure."""
    body = Body("body", diary)
    async with Application("verse", body) as application:
        body.fail(SystemExit(code))
        assert await application.wait() == status
        assert application.state is State.RUNNING
    assert caplog.messages == []


async def test_the_body_of_async_with_may_wait_for_the_end(diary: Diary) -> None:
    """A failure wakes the wait and cancels the body at once; it is raised once."""
    body = Body("body", diary)

    async def use(application: Application) -> None:
        async with application:
            body.fail()
            await application.wait()

    with pytest.raises(ServiceFailed, match="body broke"):
        await use(Application("verse", body))


async def test_an_application_that_failed_can_be_run_again(diary: Diary) -> None:
    """It forgets how it ended before."""
    body = Body("body", diary)
    application = Application("verse", body)
    await application.lifecycle.bring_up()
    body.fail()
    await diary.until("ran body")
    await application.lifecycle.take_down()
    assert application.failure is not None
    async with application:
        application.exit(2)
        assert await application.wait() == 2


async def test_an_exit_that_came_too_late_is_forgotten() -> None:
    """What is asked for while the application stops does not end its next life."""
    application = Application("verse")
    async with application:
        application.exit(1)
        await application.wait()
        application.exit(2)
    async with application:
        application.exit(3)
        assert await application.wait() == 3


async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    """Several may wait; one exit ends one wait."""
    async with Application("verse") as application:
        waits = [asyncio.create_task(application.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waits[0].cancel()
        await asyncio.sleep(0)
        application.exit(1)
        assert await waits[1] == 1
        assert not waits[2].done()
        application.exit(2)
        assert await waits[2] == 2


def test_an_application_runs_in_one_event_loop_after_another(diary: Diary) -> None:
    """Nothing of it belongs to the loop that it ran in first."""
    gate: list[asyncio.Event] = []

    class Slow(Probe):
        async def stop(self) -> None:
            await gate[-1].wait()

    application = Application("verse", Slow("slow", diary), Body("body", diary))

    async def run() -> int:
        gate.append(asyncio.Event())
        await application.lifecycle.bring_up()
        waiting = asyncio.create_task(application.wait())
        await asyncio.sleep(0)
        application.exit(6)
        stops = [asyncio.create_task(application.lifecycle.take_down()) for _ in range(2)]
        asyncio.get_running_loop().call_soon(gate[-1].set)
        await asyncio.gather(*stops)
        return await waiting

    assert [asyncio.run(run()) for _ in range(2)] == [6, 6]


async def test_a_failure_counts_more_than_an_exit(diary: Diary) -> None:
    """When a failure and an exit come at the same time, the failure is raised."""
    body = Body("body", diary)
    application = Application("verse", body)
    await application.lifecycle.bring_up()
    waiting = asyncio.create_task(application.wait())
    await asyncio.sleep(0)
    body.fail(Broken("at the end"))
    body.told.add_done_callback(lambda _: application.exit(0))
    with pytest.raises(ServiceFailed, match="at the end"):
        await waiting
    await application.lifecycle.take_down()


def test_a_subclass_need_not_call_up() -> None:
    """An application works without its base class's constructor."""

    class Verse(Application):
        def __init__(self) -> None:
            self.add(Service("one"))

    verse = Verse()
    verse.exit(1)
    assert asyncio.run(verse.wait()) == 1
