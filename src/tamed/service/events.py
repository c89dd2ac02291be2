"""Subscriptions of the application to the events of its daemon, to forward them to Sentry, statsd or a chat.

They are those of `tamed events`: deaths and restarts of workers, reloads, failing checks, and so on. A
supervisor sends them over the worker's channel, only to workers that have subscribed. A single process has
few: its readiness, the request to stop, and its checks.
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

_MOST: Final = 1000  # events queued for a subscriber


class EventStream:
    """An endless asynchronous iterator over events. The subscription begins with its creation.

    At most 1,000 events are queued. Further ones are dropped and counted: the next delivered event then has
    the kind ``lost`` and the ``count``.
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
            text = f"{self._lost} events were lost: this subscriber read too slowly"
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
        self._streams: WeakSet[EventStream] = WeakSet()  # unreferenced streams are unsubscribed
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
        """Deliver an event: in the chosen worker to all subscribers, in others to those of every worker."""
        for stream in tuple(self._streams):
            if is_chosen or stream.every_worker:
                stream.put(event)

    def publish(self, kind: str, text: str, /, **facts: Any) -> None:
        """Deliver an event of this process, which has no supervisor."""
        self.deliver(_made(kind, text, **facts), is_chosen=True)

    def publish_checks(self, before: Iterable[str], now: Iterable[str]) -> None:
        """Deliver the events of checks, from the names of the previously and the currently failing ones."""
        was, fails = set(before), set(now)
        for name in sorted(fails - was):
            self.publish("check", f"the check of {name} fails", service=name, outcome="failed")
        for name in sorted(was - fails):
            self.publish("check", f"the check of {name} passes again", service=name, outcome="passed")


hub: Final = EventHub()
"""The subscriptions in this process."""


def events(*, every_worker: bool = False) -> EventStream:
    """Subscribe to the events of the daemon; iterate over the result with ``async for``.

    Each event goes to one of the subscribed workers, so that it is reported once; with ``every_worker`` it
    goes to all of them. An event that happens while no worker serves goes to none. Leaving the loop ends the
    subscription.
    """
    return hub.subscribe(every_worker=every_worker)


def _made(kind: str, text: str, **facts: Any) -> Event:
    return {"time": rfc3339(time.time()), "event": kind, "text": text, **facts}
