"""What the operations process keeps of what it is told."""

import asyncio

import pytest

from tamed.log.layout import Line, layout_of
from tamed.ops.observer import Observer
from tests.ops.views import Told

pytestmark = pytest.mark.anyio


async def test_only_what_is_new_is_asked_for() -> None:
    """Events and records are counted by the program that has them; another one tells all its events again."""
    told = Told()
    observer = Observer(told, "bare")
    told.happens("start", "ready")
    told.logs("hello")
    await observer.look()
    told.happens("death", "killed")
    told.logs("killed", 3)
    await observer.look()
    assert told.asked == [{"program": 0, "events": 0, "log": 0}, {"program": 1, "events": 1, "log": 1}]
    told.program, told.records = 2, []
    told.logs("another")
    await observer.look()
    assert [event["text"] for event in observer.view.events] == ["ready", "killed"]
    assert [record.message for record in observer.view.records] == ["hello", "killed", "another"]
    assert [record.number for record in observer.view.records] == [1, 2, 3]


async def test_what_is_kept_is_bounded() -> None:
    """However much happens."""
    told = Told()
    observer = Observer(told, "bare")
    for number in range(1000):
        told.happens("reload", str(number))
        told.logs(str(number))
    await observer.look()
    assert (len(observer.view.events), len(observer.view.records)) == (100, 300)
    assert observer.view.records[-1].message == "999"


@pytest.mark.parametrize("layout", ["plain", "human", "json", "bare"])
async def test_the_message_of_a_record_is_shown_whatever_the_layout_of_the_log(layout: str) -> None:
    """Without what has a column of its own, and with all its lines."""
    told = Told()
    line = Line(1.0, "ERROR", "verse", "it failed", 7, traceback="Traceback:\nValueError", worker=3)
    told.logs(layout_of(layout)(line), 3)
    observer = Observer(told, layout)
    await observer.look()
    assert observer.view.records[0].message == "it failed\nTraceback:\nValueError"


async def test_text_that_is_no_record_is_shown_as_it_is() -> None:
    """A worker with another log layout may have written it."""
    told = Told()
    for text in ("a\nb", '{"message": 3}'):
        told.logs(text)
    observer = Observer(told, "plain")
    await observer.look()
    assert [record.message for record in observer.view.records] == ["a\nb", '{"message": 3}']


async def test_without_an_answer_the_last_view_stays() -> None:
    """With the reason, until there is one again."""
    told = Told()
    observer = Observer(told, "plain")
    await observer.look()
    told.why_not = "it is busy"
    await observer.look()
    assert (observer.view.trouble, observer.view.status) == ("it is busy", told.status_now)
    told.why_not = ""
    await observer.look()
    assert observer.view.trouble == ""


async def test_one_look_serves_all_who_ask_at_once() -> None:
    """Requests at the same time, or soon after, share one answer of the supervisor."""
    told = Told()
    observer = Observer(told, "plain")
    views = await asyncio.gather(*(observer.fresh() for _ in range(20)))
    assert {view.number for view in views} == {1}
    assert (await observer.fresh()).number == 1
    assert len(told.asked) == 1


async def test_a_watcher_gets_one_view_after_another() -> None:
    """As long as the service runs, which looks by itself."""
    told = Told()
    observer = Observer(told, "plain")
    async with observer:
        first = await observer.newer(0)
        second = await observer.newer(first.number)
    assert (first.number, second.number) == (1, 2)
    assert len(told.asked) == 2
