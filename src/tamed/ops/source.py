"""The data sources of the operations process: the supervisor's answers, and the workers' metrics tables."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tamed.errors import SystemRefused
from tamed.ipc.message import InvalidMessage, Message
from tamed.metrics.ledger import BASE_SIZE
from tamed.metrics.merge import Figures, Merged, Merger
from tamed.metrics.table import SIZE, Series, TableReader
from tamed.net.tls import Certificate
from tamed.worker.link import Link

__all__ = ["NoAnswer", "Source"]

_PATIENCE: Final = 1.0  # seconds
_MOST_SERIES: Final = 2 * BASE_SIZE.rows  # beyond this, the series of removed tables are forgotten
_ATTEMPTS: Final = 10  # during an upgrade: Prometheus waits for ten seconds


class NoAnswer(Exception):
    """The supervisor has not answered; the text is the reason."""


class Source:
    """Sends requests to the supervisor. Each raises NoAnswer if it is not answered within a second.

    During an upgrade it may take longer, until the next program has started. A request to the previous
    program may be lost with it, so it is repeated.

    Each request contains the ``certificates`` of the endpoint, which are part of the daemon's status.
    """

    def __init__(self, link: Link, certificates: Callable[[], Sequence[Certificate]] = tuple) -> None:
        self._link = link
        self._certificates = certificates
        self._readers: dict[int, TableReader] = {}
        self._series: dict[Series, Series] = {}  # of all tables, including earlier ones
        self._merger = Merger()
        self._reading = asyncio.Lock()  # only one request at a time reads the tables

    async def health(self) -> Message:
        """Return the facts for the health checks of the daemon."""
        return await self._ask("health")

    async def status(self) -> Message:
        """Return the daemon's status."""
        return await self._ask("status")

    async def view(self, seen: Mapping[str, int]) -> Message:
        """Return the status, and the events and records of the log after those that were ``seen``."""
        return await self._ask("view", **seen)

    async def metrics(self) -> tuple[dict[str, Any], list[Merged], int]:
        """Return the supervisor's figures, the merged metrics of workers, and the count of refused series."""
        async with self._reading:
            while True:
                answer = await self._ask("metrics", known=list(self._readers))
                pages = dict(answer["pages"])
                if pages.keys() <= self._readers.keys():
                    break
            for serial in self._readers.keys() - pages.keys():
                self._readers.pop(serial).close()
            read = [(slot, self._readers[serial]) for serial, slot in pages.items()]
            found = [Figures(each.series, each.read(), each.explanations, slot) for slot, each in read]
            refused = sum(each.refused for _, each in read)
            base = next((each for each in found if not each.slot), Figures([], [], {}))
            merged = self._merger.merge(base, [each for each in found if each.slot])
        return answer["figures"], merged, refused

    async def _ask(self, what: str, **more: object) -> Message:
        question = {"ask": what, "certificates": [each._asdict() for each in self._certificates()], **more}
        is_upgrading = False
        for _ in range(_ATTEMPTS):
            is_upgrading |= self._link.is_upgrading
            if (answer := await self._attempt(question)) is not None:
                return answer
            is_upgrading |= self._link.is_upgrading
            if not is_upgrading:
                raise NoAnswer(f"the supervisor has not answered within {_PATIENCE:g} s")
        raise NoAnswer(f"an upgrade has not ended within {_ATTEMPTS * _PATIENCE:g} s")

    async def _attempt(self, question: Message) -> Message | None:
        """Send a request once; return the answer, None if it is late."""
        asking = asyncio.ensure_future(self._link.ask(question))
        try:
            # Not a timeout, which would discard an answer that arrived while this process was delayed.
            await asyncio.wait([asking], timeout=_PATIENCE)
        finally:
            asking.cancel()
        if not asking.done():
            return None
        try:
            answer, descriptors = asking.result()
        except (SystemRefused, InvalidMessage) as error:
            raise NoAnswer(str(error)) from error
        self._take(answer, descriptors)
        return answer

    def _take(self, answer: Message, descriptors: list[int]) -> None:
        """Map the new tables."""
        slots = dict(answer.get("pages", ()))
        for serial, descriptor in zip(answer.get("new", ()), descriptors, strict=False):
            try:
                if serial in self._readers:
                    continue
                if len(self._series) > _MOST_SERIES:
                    self._series = {}
                size = SIZE if slots[serial] else BASE_SIZE
                self._readers[serial] = TableReader(descriptor, size, self._series)
            finally:
                os.close(descriptor)
