"""Subscriptions to events, in one process."""

import asyncio
import gc

import pytest

from tamed.service.events import EventHub
from tests.patience import PATIENCE

pytestmark = pytest.mark.anyio


async def test_event_is_delivered_to_those_who_want_it() -> None:
    """Subscribers for one worker get it only in the worker that is chosen."""
    hub = EventHub()
    one, every = hub.subscribe(every_worker=False), hub.subscribe(every_worker=True)
    hub.deliver({"event": "death"}, is_chosen=False)
    hub.deliver({"event": "restart"}, is_chosen=True)
    assert [await anext(every), await anext(every)] == [{"event": "death"}, {"event": "restart"}]
    assert await anext(one) == {"event": "restart"}


async def test_subscriber_waits_for_the_next_event() -> None:
    """An event wakes the subscriber, which may end its loop at any time."""
    hub = EventHub()
    found = []

    async def read() -> None:
        async for event in hub.subscribe(every_worker=False):
            found.append(event["text"])
            if len(found) == 2:
                break

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    hub.publish("start", "it is ready")
    await asyncio.sleep(0)
    hub.publish("stop", "asked to stop", asked="SIGTERM")
    await asyncio.wait_for(reading, PATIENCE)
    assert found == ["it is ready", "asked to stop"]


async def test_subscriber_that_does_not_read_loses_events_and_is_notified() -> None:
    """The queue of events is bounded; a report of the loss comes before later events."""
    hub = EventHub()
    stream = hub.subscribe(every_worker=False)
    for number in range(1003):
        hub.publish("death", str(number))
    lost = await anext(stream)
    assert (lost["event"], lost["count"]) == ("lost", 3)
    assert [(await anext(stream))["text"] for _ in range(1000)] == [str(number) for number in range(1000)]
    hub.publish("start", "next")
    assert (await anext(stream))["text"] == "next"


async def test_supervisor_is_asked_for_what_is_subscribed() -> None:
    """The supervisor gets the subscriptions made before the connection, and none that have no reader."""
    hub = EventHub()
    asked: list[bool] = []
    early = hub.subscribe(every_worker=True)
    hub.connect(asked.append)
    hub.subscribe(every_worker=False)
    assert asked == [True, False]
    del early
    gc.collect()
    again: list[bool] = []
    hub.connect(again.append)
    assert again == []


async def test_checks_of_a_process_on_its_own_are_events() -> None:
    """One when a check begins to fail, and one when it passes again."""
    hub = EventHub()
    stream = hub.subscribe(every_worker=False)
    hub.publish_checks([], ["a"])
    hub.publish_checks(["a"], ["a", "b"])
    hub.publish_checks(["a", "b"], ["b"])
    found = [await anext(stream) for _ in range(3)]
    assert [(each["service"], each["outcome"]) for each in found] == [
        ("a", "failed"),
        ("b", "failed"),
        ("a", "passed"),
    ]
