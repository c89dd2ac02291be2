"""The supervisor's tables of metrics: one for each worker, and the base to which each is added once.

A table belongs to a worker until the worker has been reaped. Then it is added to the base, which is also a
table. The base is never changed: a new one replaces it, so a reader of the old base and the tables that
existed with it still has a consistent whole. An upgrade passes both on as descriptors.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from tamed.metrics.merge import Cell, Figures, add_to_base
from tamed.metrics.table import SIZE, Series, Size, TableReader, TableWriter, create

__all__ = ["BASE_SIZE", "Ledger", "Page"]

BASE_SIZE: Final = Size(rows=4 * SIZE.rows, text=4 * SIZE.text)
"""The size of the base. It has the series of all workers that have ended."""


class Page(NamedTuple):
    """A table. ``serial`` is unique in this daemon; ``slot`` is empty for the base."""

    serial: int
    slot: str
    descriptor: int


class Ledger:
    """The tables of the workers, by pid, in the order of their creation, and the base."""

    def __init__(self) -> None:
        self._pages: dict[int, Page] = {}
        self._base: Page | None = None
        self._writer = TableWriter(BASE_SIZE)
        self._rows: dict[Series, int] = {}
        self._serial = 0

    def page_of(self, pid: int, slot: str) -> Page:
        """Return the table of a worker; create it if necessary. Raises OSError if there is no memory."""
        if (page := self._pages.get(pid)) is None:
            page = self._pages[pid] = Page(self._next(), slot, create())
        return page

    def pages(self) -> Iterator[Page]:
        """Yield the base, if there is one, and then the tables of the workers, the oldest first."""
        if self._base is not None:
            yield self._base
        yield from self._pages.values()

    def ended(self, pid: int) -> None:
        """Add the table of a worker that has ended to the base.

        Raises OSError if there is no memory for another base; the worker's counts are then lost.
        """
        if (page := self._pages.pop(pid, None)) is None:
            return
        reader = TableReader(page.descriptor)
        try:
            figures = Figures(reader.series, reader.read(), reader.explanations, page.slot)
            if figures.series or reader.refused:
                self._write(add_to_base(self._cell, figures), figures.explanations, reader.refused)
        finally:
            reader.close()
            os.close(page.descriptor)

    def close(self) -> None:
        """Free all memory."""
        for page in self.pages():
            os.close(page.descriptor)
        self._pages, self._base = {}, None

    def export(self, keep: Callable[[int], int]) -> dict[str, Any]:
        """Return this as data, for the next program; ``keep`` keeps a descriptor open until then."""
        return {
            "serial": self._serial,
            "base": None if self._base is None else keep(self._base.descriptor),
            "workers": [
                {"pid": pid, "serial": page.serial, "slot": page.slot, "table": keep(page.descriptor)}
                for pid, page in self._pages.items()
            ],
        }

    def resume(self, left: dict[str, Any]) -> None:
        """Resume from the state of the previous program."""
        self._serial = left["serial"]
        for each in left["workers"]:
            self._pages[each["pid"]] = Page(each["serial"], each["slot"], each["table"])
        if left["base"] is not None:
            reader = TableReader(left["base"], BASE_SIZE)
            cells = reader.read()
            base = zip(reader.series, cells[::2], cells[1::2], strict=True)
            former = {series: (value, second) for series, value, second in base}
            self._write(former, reader.explanations, reader.refused)
            reader.close()
            os.close(left["base"])

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _cell(self, series: Series) -> Cell | None:
        if (row := self._rows.get(series)) is None:
            return None
        return self._writer.cells[2 * row], self._writer.cells[2 * row + 1]

    def _write(self, changed: Mapping[Series, Cell], explanations: Mapping[str, str], refused: int) -> None:
        """Write the next base."""
        descriptor = create(BASE_SIZE)
        try:
            self._writer.move(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if self._base is not None:
            os.close(self._base.descriptor)
        self._base = Page(self._next(), "", descriptor)
        for series, cell in changed.items():
            if (row := self._rows.get(series, 0)) == 0:
                row = self._writer.add(series, explanations.get(series.family.name, ""))
            if row:
                self._rows[series] = row
                self._writer.cells[2 * row], self._writer.cells[2 * row + 1] = cell
        self._writer.refuse(refused)
