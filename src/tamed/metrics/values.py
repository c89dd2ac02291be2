"""The values of the metrics of this process: each is a row of a table, so an update is a store into memory.

They replace the values of ``prometheus_client``, so an application, or a library, uses that as usual.
"""

import os
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from tamed._os.fork import own
from tamed._os.secrets import SECRETS
from tamed.metrics._compat import adopt
from tamed.metrics.table import Family, Series, TableWriter

__all__ = ["Value", "Values"]

_GAUGE = "gauge"


class Value:
    """A number that all threads of this process may change; each change is exact.

    Except for gauges, the table's value never decreases: setting a smaller number, as a reset of a counter
    does, affects only `get`.
    """

    __slots__ = ("_exemplar", "_index", "_is_gauge", "_lock", "_offset", "_table", "_total")

    def __init__(self, table: TableWriter, row: int, *, is_gauge: bool) -> None:
        self._table = table
        self._index = 2 * row
        self._is_gauge = is_gauge
        self._lock = Lock()
        self._total = 0.0
        self._offset = 0.0
        self._exemplar: Any = None

    def inc(self, amount: float) -> None:
        """Add to the number."""
        with self._lock:
            self._total = total = self._total + amount
            self._table.cells[self._index] = total

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the number. ``timestamp`` is when, in seconds since the epoch."""
        with self._lock:
            if self._is_gauge:
                self._total = value
                self._table.cells[self._index + 1] = timestamp or 0.0
            else:
                self._total += max(0.0, value - (self._total - self._offset))
                self._offset = self._total - value
            self._table.cells[self._index] = self._total

    def get(self) -> float:
        """Return the number, with the changes of this process only."""
        with self._lock:
            return self._total - self._offset

    def set_exemplar(self, exemplar: Any) -> None:
        """Keep an exemplar, in this process only."""
        self._exemplar = exemplar

    def get_exemplar(self) -> Any:
        """Return the last exemplar; None if there is none."""
        return self._exemplar


class Values:
    """All values of this process."""

    def __init__(self) -> None:
        self._table = TableWriter()
        self._lock = Lock()
        self._values: dict[tuple[object, ...], Value] = {}
        self._infos: dict[tuple[object, ...], Value] = {}

    def adopt(self) -> None:
        """Make all metrics of ``prometheus_client`` in this process store their values here.

        Does nothing if the environment selects the multiprocess mode of ``prometheus_client`` itself.
        """
        adopt(self.value, self.inform)

    def move(self, descriptor: int) -> None:
        """Store the values in the table of this descriptor from now on; the descriptor is closed.

        A process forked by the application continues with its own copy.
        """
        try:
            self._table.move(descriptor)
        finally:
            os.close(descriptor)
        own(self)

    def disown(self) -> None:
        """In a forked child, count separately from the parent."""
        self._lock = Lock()
        if self._table.is_shared:
            self._table.move(None)

    def value(  # noqa: PLR0917 - the library calls it so
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        help_text: str,
        multiprocess_mode: str = "",
        **_: object,
    ) -> Value:
        """Return the value of a series; the signature is that of ``prometheus_client``'s value classes.

        The same series has the same value object, even after a metric has removed and recreated it.
        """
        key = (typ, name, *labelnames, *labelvalues)
        with self._lock:
            if (value := self._values.get(key)) is None:
                labels = tuple(zip(labelnames, labelvalues, strict=True))
                series = Series(Family(metric_name, typ, multiprocess_mode), name, labels)
                value = self._values[key] = self._new(series, help_text, is_gauge=typ == _GAUGE)
            return value

    def inform(
        self, name: str, labels: Sequence[tuple[str, str]], info: Mapping[str, object], help_text: str
    ) -> None:
        """Set the texts of an info metric; they replace earlier texts with these labels."""
        key = (name, *labels)
        texts = tuple((label, str(text)) for label, text in info.items())
        with self._lock:
            if (former := self._infos.pop(key, None)) is not None:
                former.set(0)
            whole = (*key, *texts)
            if (value := self._values.get(whole)) is None:
                series = Series(Family(name, "info"), f"{name}_info", (*labels, *texts))
                value = self._values[whole] = self._new(series, help_text, is_gauge=True)
            value.set(1)
            self._infos[key] = value

    def _new(self, series: Series, help_text: str, *, is_gauge: bool) -> Value:
        labels = tuple((label, SECRETS.hidden(text)) for label, text in series.labels)
        row = self._table.add(series._replace(labels=labels), help_text)
        return Value(self._table, row, is_gauge=is_gauge)
