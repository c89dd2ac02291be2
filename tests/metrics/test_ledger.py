"""The tables of a daemon's workers, and the base."""

import os
from collections.abc import Iterator

import pytest

from tamed.metrics.ledger import BASE_SIZE, Ledger
from tamed.metrics.merge import Figures, Merger, Sample
from tamed.metrics.table import TableReader
from tamed.metrics.values import Values


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """A ledger without tables."""
    ledger = Ledger()
    yield ledger
    ledger.close()


def count(ledger: Ledger, pid: int, slot: str, amount: float) -> None:
    """Count in a worker's table."""
    values = Values()
    values.move(os.dup(ledger.page_of(pid, slot).descriptor))
    values.value("counter", "jobs", "jobs_total", (), (), "what it is").inc(amount)


def samples(ledger: Ledger) -> list[Sample]:
    """Return the merged samples of all tables."""
    figures = [Figures([], [], {})]
    for page in ledger.pages():
        reader = TableReader(page.descriptor) if page.slot else TableReader(page.descriptor, BASE_SIZE)
        each = Figures(reader.series, reader.read(), reader.explanations, page.slot)
        figures = [*figures, each] if page.slot else [each]
        reader.close()
    return [sample for merged in Merger().merge(figures[0], figures[1:]) for sample in merged.samples]


def test_ended_worker_is_added_once(ledger: Ledger) -> None:
    """The sum is the same before and after a worker ends, and another end of the same pid adds nothing."""
    count(ledger, 10, "1", 3)
    count(ledger, 11, "2", 4)
    for pid in (10, 10, 11):
        assert samples(ledger) == [Sample("jobs_total", (), 7.0)]
        ledger.ended(pid)
    assert samples(ledger) == [Sample("jobs_total", (), 7.0)]


def test_worker_that_counts_nothing_makes_no_base(ledger: Ledger) -> None:
    """A worker without metrics needs no base, and a pid without a table is none."""
    ledger.page_of(10, "1")
    ledger.ended(10)
    ledger.ended(11)
    assert list(ledger.pages()) == []


def test_former_base_is_still_a_whole(ledger: Ledger) -> None:
    """A base that somebody reads does not change when another worker ends."""
    count(ledger, 10, "1", 3)
    ledger.ended(10)
    base = next(ledger.pages())
    reader = TableReader(base.descriptor, BASE_SIZE)
    count(ledger, 11, "1", 4)
    ledger.ended(11)
    assert reader.read()[0] == 3.0
    assert next(ledger.pages()).serial != base.serial


def test_next_program_goes_on(ledger: Ledger) -> None:
    """The base and the tables of living workers are there after an upgrade, and so are their numbers."""
    count(ledger, 10, "1", 3)
    ledger.ended(10)
    count(ledger, 11, "1", 4)
    after = Ledger()
    after.resume(ledger.export(os.dup))
    assert samples(after) == [Sample("jobs_total", (), 7.0)]
    serial = max(page.serial for page in ledger.pages())
    assert after.page_of(12, "2").serial > serial
    after.ended(11)
    count(after, 13, "1", 1)
    assert samples(after) == [Sample("jobs_total", (), 8.0)]
    after.close()


def test_refused_series_are_counted_on(ledger: Ledger) -> None:
    """What a worker refused is still counted when it has ended."""
    values = Values()
    values.move(os.dup(ledger.page_of(10, "1").descriptor))
    values.value("counter", "jobs", "jobs_total", ("of",), ("x" * 5000,), "what it is").inc(1)
    ledger.ended(10)
    assert TableReader(next(ledger.pages()).descriptor, BASE_SIZE).refused == 1
