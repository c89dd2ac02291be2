"""The sections of the page as they change, as server-sent events (WHATWG HTML, 9.2).

Queues are bounded: a slow client gets the newest sections after it has received the last ones. The streams
end when the server drains; browsers then reconnect to the next process.
"""

import asyncio
from collections.abc import Iterator
from typing import Final

from tamed.ops.observer import Observer, View
from tamed.ops.page import Page
from tamed.web.asgi import Receive, Send

__all__ = ["Streams"]

_MOST: Final = 32  # streams at the same time
_QUIET: Final = 15.0  # seconds until a comment tests the connection
_RETRY: Final = b"retry: 1000\n\n"  # milliseconds


class Streams:
    """Serves the streams, up to a limit."""

    def __init__(self, observer: Observer, page: Page) -> None:
        self._observer = observer
        self._page = page
        self._count = 0

    @property
    def are_full(self) -> bool:
        """Whether the limit of streams is reached."""
        return self._count >= _MOST

    async def serve(self, receive: Receive, send: Send) -> None:
        """Send the body of one answer, after its head, until the client disconnects or the server drains."""
        self._count += 1
        sending = asyncio.ensure_future(self._send_all(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._count -= 1
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.body", "body": _RETRY, "more_body": True})
        view = await self._observer.fresh()
        sent: dict[str, str] = {}
        shown: int | None = None  # the last record
        while True:
            events = b"".join(self._events(view, sent, shown))
            shown = view.records[-1].number if view.records else 0
            if events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
            view = await self._next(view.number, send)

    async def _next(self, number: int, send: Send) -> View:
        while True:
            try:
                async with asyncio.timeout(_QUIET):
                    return await self._observer.newer(number)
            except TimeoutError:
                await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})

    def _events(self, view: View, sent: dict[str, str], shown: int | None) -> Iterator[bytes]:
        """Yield the changes since the ``sent`` sections and the last ``shown`` record."""
        for name, html in self._page.sections(view).items():
            if sent.get(name) != html:
                sent[name] = html
                yield _event(name, html)
        new = [record for record in view.records if shown is None or record.number > shown]
        if shown is None or new:
            yield _event("log" if shown is None else "more", self._page.rows(new))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _event(name: str, html: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in html.split("\n"))
    return f"event: {name}\n{lines}\n".encode(errors="replace")
