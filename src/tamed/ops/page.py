"""The page for operators, as HTML that works without scripts.

One file (``page.html``) has the style and the script; its sections are filled in here. The script receives
the same sections when they change. So HTML is made in one place, which escapes everything.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Final

from tamed.ops._sections import SECTIONS, text_of, time_of, workers_of
from tamed.ops.observer import LEVELS, LogRecord, Observer, View
from tamed.web.asgi import Receive, Send

__all__ = ["Page", "Selection", "Streams"]

_FILTERS: Final = {"": "all", "6": "INFO", "4": "WARNING", "3": "ERROR", "2": "CRITICAL"}
_NO_WORKER: Final = "daemon"  # shown for records of processes other than workers
_MOST: Final = 32  # streams at the same time
_QUIET: Final = 15.0  # seconds until an event tests the connection, and shows the page that it is alive
_RETRY: Final = b"retry: 1000\n\n"  # milliseconds


class Selection:
    """The selected records of the log, from the query of a request.

    An invalid level or worker selects all.
    """

    def __init__(self, query: Mapping[str, Sequence[str]]) -> None:
        level, worker = (query.get(key, [""])[-1] for key in ("level", "worker"))
        self.level = level if level in _FILTERS else ""
        self.worker = worker if worker == _NO_WORKER or worker.isdecimal() else ""

    def takes(self, record: LogRecord) -> bool:
        """Return whether to show a record."""
        if self.level and record.severity > int(self.level):
            return False
        return not self.worker or self.worker == _place(record)


class Page:
    """Makes the page, and its sections.

    ``headers`` allow the page its own style and script, and nothing else.
    """

    def __init__(self) -> None:
        self._template = (files("tamed.ops") / "page.html").read_text("utf-8")
        style, script = (_hash(self._template, tag) for tag in ("style", "script"))
        policy = (
            f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        self.headers: Final = {
            "content-security-policy": policy,
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
        }
        self._made: tuple[int, dict[str, str]] = -1, {}

    def whole(self, view: View, selection: Selection) -> str:
        """Return the page."""
        name = "Tamed" if view.status is None else f"{view.status['name']} is {view.status['state']}"
        numbers = {_place(each): _place(each) for each in view.records}
        numbers |= {str(each["number"]): str(each["number"]) for each in workers_of(view)}
        workers = {"": "all"} | dict(sorted(numbers.items(), key=lambda item: (len(item[0]), item[0])))
        parts = {
            **self.sections(view),
            "title": text_of(name),
            "now": text_of(view.records[-1].time[:19].replace("T", " ")) if view.records else "now",
            "levels": _options(_FILTERS, selection.level),
            "numbers": _options(workers, selection.worker),
            "log": self.rows(filter(selection.takes, view.records)),
        }
        return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], self._template)

    def sections(self, view: View) -> dict[str, str]:
        """Return the sections, by their ids; without the log."""
        number, sections = self._made
        if number != view.number:
            sections = {name: "".join(make(view)) for name, make in SECTIONS.items()}
            self._made = view.number, sections
        return sections

    def rows(self, records: Iterable[LogRecord]) -> str:
        """Return rows of the table of the log; the latest first."""
        return "".join(_row(record) for record in reversed(list(records)))


def _hash(template: str, tag: str) -> str:
    text = template.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _options(choices: Mapping[str, str], chosen: str) -> str:
    return "".join(
        f'<option value="{text_of(value)}"{" selected" * (value == chosen)}>{text_of(name)}</option>'
        for value, name in choices.items()
    )


def _place(record: LogRecord) -> str:
    return _NO_WORKER if record.worker is None else str(record.worker)


def _row(record: LogRecord) -> str:
    level = LEVELS.get(record.severity, "")
    kind = "bad" if record.severity <= 3 else "warn" if record.severity == 4 else ""
    return (
        f'<tr data-severity="{record.severity}" data-worker="{_place(record)}">'
        f'<td class="when">{time_of(record.time)}</td><td><span class="state {kind}">{level}</span></td>'
        f'<td class="number">{_place(record)}</td>'
        f'<td class="text">{text_of(record.logger)}: {text_of(record.message)}</td></tr>'
    )


class Streams:
    """Serves the sections as they change, as server-sent events (WHATWG HTML, 9.2), up to a limit.

    Queues are bounded: a slow client gets the newest sections after it has received the last ones. The
    streams end when the server drains; browsers then reconnect to the next process.
    """

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
                await send({"type": "http.response.body", "body": _event("alive", ""), "more_body": True})

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
