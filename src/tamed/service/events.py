"""Subscribing to the events of the daemon in the application: for Sentry, statsd, a chat.

They are those of `tamed events`: deaths and restarts of workers, reloads, checks that fail, and so on. Under
a supervisor they come over the worker's channel, and only to workers that have subscribed. A process on its
own has few: that it is ready, that it was asked to stop, and its checks.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Self
from weakref import WeakSet

from tamed.log.layout import rfc3339

__all__ = ["Event", "EventHub", "EventStream", "events", "hub"]

Event = dict[str, Any]
"""``time`` (RFC 3339), ``event`` (the kind), ``text`` (one sentence), and the facts of this kind."""

_MOST: Final = 1000  # events that wait for a subscriber


class EventStream:
    """An asynchronous iterator over events, without an end. It is subscribed from its creation.

    At most a thousand events wait in it. Further ones are dropped and counted: the next one that is delivered
    is then of the kind ``lost``, with their ``count``.
    """

    def __init__(self, *, every_worker: bool) -> None:
        self.every_worker = every_worker
        self._events: deque[Event] = deque()
        self._lost = 0
        self._waiting: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event, and wait for it. Only one task may wait at a time."""
        while not self._events:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        if self._lost:
            text = f"{self._lost} events were lost: they came faster than this subscriber took them"
            lost, self._lost = _made("lost", text, count=self._lost), 0
            return lost
        return self._events.popleft()

    def put(self, event: Event) -> None:
        """Add an event."""
        if len(self._events) >= _MOST:
            self._lost += 1
            return
        self._events.append(event)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class EventHub:
    """The subscriptions in this process, and the source of its events."""

    def __init__(self) -> None:
        self._streams: WeakSet[EventStream] = WeakSet()  # one that nobody reads any more is gone
        self._request: Callable[[bool], object] = lambda _: None

    def connect(self, request: Callable[[bool], object]) -> None:
        """Set the function that requests events from the supervisor, for every worker or for one of all."""
        self._request = request
        for every_worker in {stream.every_worker for stream in self._streams}:
            request(every_worker)

    def subscribe(self, *, every_worker: bool) -> EventStream:
        """Return a stream of the events from now on."""
        stream = EventStream(every_worker=every_worker)
        self._streams.add(stream)
        self._request(every_worker)
        return stream

    def deliver(self, event: Event, *, is_chosen: bool) -> None:
        """Deliver an event. Only the worker that is chosen for it has it for all its subscribers."""
        for stream in tuple(self._streams):
            if is_chosen or stream.every_worker:
                stream.put(event)

    def publish(self, kind: str, text: str, /, **facts: Any) -> None:
        """Deliver an event of this process, which has no supervisor."""
        self.deliver(_made(kind, text, **facts), is_chosen=True)

    def publish_checks(self, before: Iterable[str], now: Iterable[str]) -> None:
        """Deliver the events of checks, from the names of those that failed before and that fail now."""
        was, fails = set(before), set(now)
        for name in sorted(fails - was):
            self.publish("check", f"the check of {name} fails", service=name, outcome="failed")
        for name in sorted(was - fails):
            self.publish("check", f"the check of {name} passes again", service=name, outcome="passed")


hub: Final = EventHub()
"""The subscriptions in this process."""


def events(*, every_worker: bool = False) -> EventStream:
    """Subscribe to the events of the daemon; iterate over the result with ``async for``.

    Each event goes to one worker of those that have subscribed, so that it is reported once; with
    ``every_worker`` to all of them. An event that happens while no worker serves goes to none. The end of the
    loop ends the subscription.
    """
    return hub.subscribe(every_worker=every_worker)


def _made(kind: str, text: str, **facts: Any) -> Event:
    return {"time": rfc3339(time.time()), "event": kind, "text": text, **facts}
