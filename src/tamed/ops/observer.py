"""The data of the page: the daemon's status, its history, its events and the last lines of its log.

The operations process requests them from the supervisor: every five seconds for the history, and every
second while a page is open. All stored data is bounded.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from tamed.log.layout import rfc3339
from tamed.log.search import EntryReader
from tamed.ops.source import NoAnswer, Source
from tamed.service.service import Service

__all__ = ["LEVELS", "SPAN", "STEP", "History", "LogRecord", "Observer", "Sample", "View"]

SPAN: Final = 600.0
"""Seconds of history."""

STEP: Final = 5.0
"""Seconds between two samples."""

_WATCHED: Final = 1.0  # seconds between two requests while a page is open
_FRESH: Final = 0.9  # seconds for which a view is recent enough for another page
_EVENTS: Final = 100
_RECORDS: Final = 300
_MOST: Final = 1000  # workers whose samples are kept

LEVELS: Final = {2: "CRITICAL", 3: "ERROR", 4: "WARNING", 5: "INFO", 6: "INFO", 7: "DEBUG"}
"""The names of syslog's severities."""


class Sample(NamedTuple):
    """A worker's use at a time: memory in bytes, the share of a CPU since the last sample, connections.

    None means unknown.
    """

    time: float
    memory: float | None
    cpu: float | None
    connections: float | None


class _Worker:
    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=round(SPAN / STEP))
        self.seen: Sample | None = None  # the last measurement, with the CPU time used up to then
        self.latest: Sample | None = None


class History:
    """The current workers' use of memory, CPU and connections in the last ten minutes, by pid."""

    def __init__(self) -> None:
        self._workers: dict[int, _Worker] = {}
        self._sampled: float | None = None

    def add(self, now: float, workers: Iterable[Mapping[str, Any]]) -> None:
        """Add the workers' current use, from a status. ``now`` is in seconds on a monotonic clock."""
        is_due = self._sampled is None or now - self._sampled >= STEP * 0.9  # it may come early
        if is_due:
            self._sampled = now
        there = {worker["pid"]: worker for worker in list(workers)[:_MOST]}
        self._workers = {pid: self._workers.get(pid) or _Worker() for pid in there}
        for pid, worker in there.items():
            kept = self._workers[pid]
            before = kept.seen
            seen = Sample(now, worker.get("memory"), worker.get("cpu"), worker.get("connections"))
            cpu = None if before is None else _share(before, seen)
            kept.seen = seen
            kept.latest = seen._replace(cpu=cpu)
            if is_due:
                kept.samples.append(kept.latest)

    def latest(self, pid: int) -> Sample | None:
        """Return the last measurement of a worker."""
        return self._workers[pid].latest if pid in self._workers else None

    def of(self, pid: int) -> list[Sample]:
        """Return the samples of a worker, the oldest first."""
        return list(self._workers[pid].samples) if pid in self._workers else []


def _share(before: Sample, after: Sample) -> float | None:
    if before.cpu is None or after.cpu is None or after.time <= before.time:
        return None
    return max(0.0, after.cpu - before.cpu) / (after.time - before.time)


class LogRecord(NamedTuple):
    """A record of the log. ``number`` counts them; ``worker`` is None for a record of the supervisor."""

    number: int
    time: str
    severity: int
    logger: str
    worker: int | None
    message: str


class View(NamedTuple):
    """The known data. ``number`` increases with each request to the supervisor.

    ``status`` is None before the first answer. ``trouble`` is the reason if the last request had no answer,
    else empty.
    """

    number: int
    at: float  # seconds on the monotonic clock
    status: Mapping[str, Any] | None
    trouble: str
    history: History
    events: tuple[Mapping[str, Any], ...]
    records: tuple[LogRecord, ...]


class Observer(Service):
    """A service that requests news while it runs. ``layout`` is that of the log."""

    name = "observer"

    def __init__(self, source: Source, layout: str) -> None:
        self._source = source
        self._layout = layout
        self._history = History()
        self._events: deque[Mapping[str, Any]] = deque(maxlen=_EVENTS)
        self._records: deque[LogRecord] = deque(maxlen=_RECORDS)
        self._count = 0  # records, in total
        self._seen = {"program": 0, "events": 0, "log": 0}
        self._looking = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._wanted = asyncio.Event()
        self._watchers = 0
        self.view = View(0, 0.0, None, "no answer yet", self._history, (), ())

    async def run(self) -> None:
        """Request news at intervals."""
        while True:
            await self.look()
            looked = time.monotonic()
            while (left := looked + (_WATCHED if self._watchers else STEP) - time.monotonic()) > 0:
                self._wanted.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._wanted.wait()

    async def fresh(self) -> View:
        """Return a view that is no older than a second."""
        if time.monotonic() - self.view.at > _FRESH or self.view.status is None:
            await self.look()
        return self.view

    async def newer(self, number: int) -> View:
        """Wait for a view newer than this number, and return it. A waiting caller counts as an open page."""
        self._watchers += 1
        self._wanted.set()
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self.view.number > number)
        finally:
            self._watchers -= 1
        return self.view

    async def look(self) -> None:
        """Request news now."""
        before = self.view.number
        async with self._looking:
            if self.view.number > before:  # another caller has done this in the meantime
                return
            status, trouble = self.view.status, ""
            try:
                answer = await self._source.view(self._seen)
            except NoAnswer as error:
                trouble = str(error)
            else:
                status = answer["status"]
                self._take(answer)
            view = View(
                before + 1,
                time.monotonic(),
                status,
                trouble,
                self._history,
                tuple(self._events),
                tuple(self._records),
            )
        async with self._changed:
            self.view = view
            self._changed.notify_all()

    def _take(self, answer: Mapping[str, Any]) -> None:
        self._history.add(time.monotonic(), answer["status"]["workers"])
        if answer["program"] != self._seen["program"]:
            self._events.clear()  # another program has received all of them
        self._events += answer["new_events"]
        for record in answer["new_records"]:
            self._count += 1
            self._records.append(self._record(record))
        self._seen = {key: answer[key] for key in self._seen}

    def _record(self, record: Mapping[str, Any]) -> LogRecord:
        text = record["text"]
        return LogRecord(
            self._count,
            rfc3339(record["time"]),
            record["severity"],
            record["logger"],
            record["worker"],
            text if self._layout == "bare" else _message(text),
        )


def _message(text: str) -> str:
    """Return the message of a log line, with its traceback, but without its other parts."""
    reader = EntryReader()
    entries = [*reader.feed([text.encode(), b"\n"]), *reader.flush()]
    fields = entries[0].fields
    if len(entries) != 1 or not isinstance(message := fields.get("message"), str):
        return text
    traceback = fields.get("traceback")
    return f"{message}\n{traceback}" if isinstance(traceback, str) else message
