"""The known faults of Twisted's service model, each with a test that ours has not got it."""

import asyncio
import logging

import pytest

from tamed.errors import DeadlinePassed, ServiceFailed, status_of
from tamed.service.application import Application
from tamed.service.lifecycle import State
from tamed.service.service import MultiService
from tests.service.stand_ins import Body, Broken, Diary, Probe

pytestmark = pytest.mark.anyio


class Late(Probe):
    """Fails to start, after it has waited."""

    async def start(self) -> None:
        await super().start()
        await asyncio.sleep(0)
        raise Broken("no such poem")


async def test_an_asynchronous_start_that_fails_is_reported_and_fails_the_start(diary: Diary) -> None:
    """Twisted ignores the failure: the program runs on without the service and exits with status 0."""
    application = Application("verse", Late("poetry", diary))
    with pytest.raises(ServiceFailed) as caught:
        await application.lifecycle.bring_up()
    assert str(caught.value) == "service poetry failed in start: Broken: no such poem"
    assert status_of(caught.value) == 70
    assert application.state is State.FAILED


async def test_when_a_child_fails_to_start_those_before_it_are_stopped_in_reverse(diary: Diary) -> None:
    """Twisted never stops them."""
    one, two, three = Probe("one", diary), Probe("two", diary), Late("three", diary)
    with pytest.raises(ServiceFailed, match="three"):
        await Application("verse", one, two, three, Probe("four", diary)).lifecycle.bring_up()
    assert diary.of("start") == ["one", "two", "three"]
    assert diary.of("stop") == ["two", "one"]
    assert diary.of("release") == ["four", "three", "two", "one"]


async def test_children_stop_in_reverse_each_after_the_next_one_has_stopped(diary: Diary) -> None:
    """Twisted stops all of them at once."""
    gate = asyncio.Event()
    one, two = Probe("one", diary), Probe("two", diary, holds={"stop": gate})
    application = Application("verse", one, two)
    await application.lifecycle.bring_up()
    stopping = asyncio.create_task(application.lifecycle.take_down())
    await two.entered.wait()
    assert diary.of("stop") == ["two"]
    gate.set()
    assert await stopping == []
    assert diary.of("stop") == ["two", "one"]


async def test_a_stop_that_never_ends_is_cut_at_its_deadline_and_reported(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """In Twisted, such a stop prevents the process from ending."""
    stuck = Probe("stuck", diary, holds={"stop": asyncio.Event()})
    stuck.stop_timeout = 0.001
    application = Application("verse", Probe("one", diary), MultiService("group", stuck))
    await application.lifecycle.bring_up()
    (failure,) = await application.lifecycle.take_down()
    assert isinstance(failure.cause, DeadlinePassed)
    assert caplog.messages == ["service group/stuck failed in stop: not done within 0.001 s"]
    assert diary.of("stop") == ["stuck", "one"]


async def test_a_stop_that_fails_is_reported_with_the_path_of_the_service(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """Twisted drops the failure."""
    bad = Probe("bad", diary, fails={"stop": Broken("cannot stop")})
    application = Application("verse", Probe("one", diary), MultiService("group", bad))
    await application.lifecycle.bring_up()
    (failure,) = await application.lifecycle.take_down()
    assert (failure.path, failure.phase) == ("group/bad", "stop")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "service group/bad failed in stop: Broken: cannot stop"
    assert record.exc_info is not None
    assert diary.of("stop") == ["bad", "one"]


async def test_a_child_added_while_its_parent_starts_is_started_once(diary: Diary) -> None:
    """Twisted starts it twice."""

    class Adder(Probe):
        async def start(self) -> None:
            await super().start()
            assert self.parent is not None
            await self.parent.add(Probe("added", diary))

    application = Application("verse", Adder("adder", diary), Probe("last", diary))
    async with application:
        assert diary.of("prepare") == ["adder", "last", "added"]
        assert diary.of("start") == ["adder", "last", "added"]
        assert application["added"].state is State.RUNNING
    assert diary.of("stop") == ["added", "last", "adder"]


async def test_a_stopped_application_can_be_started_again(diary: Diary) -> None:
    """In Twisted, stopped services, servers above all, often cannot be started again."""
    application = Application("verse", Probe("one", diary), Body("two", diary))
    async with application:
        pass
    first_life = diary.take()
    async with application:
        assert application.state is State.RUNNING
    assert diary == first_life


async def test_the_application_chooses_its_exit_status(diary: Diary) -> None:
    """Twisted's status is always 0."""
    application = Application("verse", Probe("one", diary))
    async with application:
        application.exit(3)
        assert await application.wait() == 3


async def test_a_service_that_dies_ends_the_application(diary: Diary) -> None:
    """A Twisted process runs on without the service and says that it is ready."""
    body = Body("body", diary)
    application = Application("verse", MultiService("group", body))
    await application.lifecycle.bring_up()
    body.fail()
    with pytest.raises(ServiceFailed, match="service group/body failed in run: Broken: body broke"):
        await application.wait()
    assert application.state is State.FAILED
    await application.lifecycle.take_down()
