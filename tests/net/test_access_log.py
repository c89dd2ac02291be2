"""Lines for very many connections, handed on together."""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence

import pytest

from tamed.log.logger import AccessLog, LinesHandler

pytestmark = pytest.mark.anyio


class Collector(logging.Handler):
    """Takes lines together, and records."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[str, int, float, list[str]]] = []
        self.records: list[logging.LogRecord] = []

    def handle_lines(self, name: str, level: int, created: float, lines: Sequence[str]) -> None:
        """Collect lines."""
        self.batches.append((name, level, created, [*lines]))

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a record."""
        self.records.append(record)


class OnlyRecords(logging.Handler):
    """Any handler of somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a record."""
        self.records.append(record)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Make a logger that logs to nobody yet."""
    logger = logging.getLogger("verse.access")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    logger.handlers.clear()
    logger.filters.clear()


async def test_the_lines_of_a_turn_come_together(logger: logging.Logger) -> None:
    """At its end, in order, with the time of the first."""
    handler = Collector()
    assert isinstance(handler, LinesHandler)
    logger.handlers = [handler]  # in place of those of pytest
    access = AccessLog(logger)
    begun = time.time()
    access.add("o%s", "ne")
    access.add("100 % of two")
    assert handler.batches == []
    await asyncio.sleep(0)
    [(name, level, created, lines)] = handler.batches
    assert (name, level, lines) == ("verse.access", logging.INFO, ["one", "100 % of two"])
    assert begun <= created <= time.time()
    access.add("three")
    await asyncio.sleep(0)
    assert handler.batches[-1][3] == ["three"]


async def test_not_more_are_kept_than_256(logger: logging.Logger) -> None:
    """A turn may be long."""
    handler = Collector()
    logger.handlers = [handler]  # in place of those of pytest
    access = AccessLog(logger)
    for number in range(600):
        access.add(f"{number}")
    assert [len(lines) for *_, lines in handler.batches] == [256, 256]
    access.flush()
    access.flush()
    assert [line for *_, lines in handler.batches for line in lines] == [f"{number}" for number in range(600)]


async def test_other_handlers_get_records(logger: logging.Logger) -> None:
    """If one of them takes no lines, all get records, as of any call of logging."""
    handler, other = Collector(), OnlyRecords()
    logger.handlers = [handler, other]
    access = AccessLog(logger, logging.WARNING)
    access.add("100 %")
    access.flush()
    assert handler.batches == []
    assert handler.records == other.records
    [record] = other.records
    assert (record.getMessage(), record.levelname, record.name) == ("100 %", "WARNING", "verse.access")


@pytest.mark.parametrize("at", ["logger", "handler"])
async def test_filters_see_records(logger: logging.Logger, at: str) -> None:
    """Nothing passes a filter by."""
    handler = Collector()
    logger.handlers = [handler]  # in place of those of pytest
    (logger if at == "logger" else handler).addFilter(lambda record: "no" not in record.getMessage())
    access = AccessLog(logger)
    access.add("yes")
    access.add("no")
    access.flush()
    assert handler.batches == []
    assert [record.getMessage() for record in handler.records] == ["yes"]


async def test_levels_are_heeded(logger: logging.Logger) -> None:
    """That of the logger, and that of each handler."""
    handler, loud = Collector(), Collector()
    loud.setLevel(logging.ERROR)
    logger.handlers = [handler, loud]
    AccessLog(logger, logging.DEBUG).add("not enabled")
    access = AccessLog(logger)
    access.add("one")
    access.flush()
    await asyncio.sleep(0)
    assert [lines for *_, lines in handler.batches] == [["one"]]
    assert loud.batches == []


async def test_a_long_line_is_cut(logger: logging.Logger) -> None:
    """A client chooses how long its URL is, and not how much of the log a line takes."""
    handler = Collector()
    logger.addHandler(handler)
    access = AccessLog(logger)
    access.add("GET %s", "x" * 100_000)
    access.flush()
    lines = [line for _, _, _, lines in handler.batches for line in lines]
    (line,) = lines + [record.getMessage() for record in handler.records]
    assert line.startswith("GET xxx")
    assert line.endswith("x... (100004 characters)")
    assert len(line) < 1100
