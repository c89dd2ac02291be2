"""The handlers of `logging`."""

import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tamed.config.settings import Level
from tamed.log.layout import layout_of
from tamed.log.logger import LinesHandler
from tamed.log.record import Origin
from tamed.worker.log_handler import SinkHandler, log_to, severity
from tests.runner.test_intake import ListSink


class ChildSink(ListSink):
    """A sink with a running child, which records the calls."""

    def __init__(self, child: int = 0) -> None:
        super().__init__()
        self.child = child
        self.events: list[object] = []

    def reopen(self) -> str:
        self.events.append("reopened")
        return ""

    def housekeep(self) -> None:
        self.events.append("housekept")

    def child_ended(self, pid: int, status: int) -> bool:
        self.events.append((pid, status))
        return True


@contextmanager
def _logged(layout: str = "bare") -> Iterator[ListSink]:
    """Have a sink that gets all that is logged, at the level INFO, and that of one logger at DEBUG.

    No fixture, because pytest puts handlers of its own in place for each phase of a test.
    """
    made = ListSink()
    root = logging.getLogger()
    kept, level = root.handlers, root.level
    root.handlers = []
    levels = [Level("", logging.INFO), Level("test.poems", logging.DEBUG)]
    log_to(SinkHandler(made), layout_of(layout), levels)
    try:
        yield made
    finally:
        logging.captureWarnings(capture=False)
        root.handlers = kept
        root.setLevel(level)
        logging.getLogger("test.poems").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (logging.CRITICAL + 5, 2),
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.DEBUG, 7),
        (1, 7),
    ],
)
def test_a_level_has_a_severity(level: int, number: int) -> None:
    """It is the severity of syslog that is next below."""
    assert severity(level) == number


def test_what_is_logged_is_written() -> None:
    """As an entry of this process; each logger at its own level."""
    with _logged() as sink:
        logging.getLogger("test.other").info("poem %d", 3)
        logging.getLogger("test.other").debug("not this")
        logging.getLogger("test.poems").debug("but this")
    origins = [record.origin._replace(time=0.0) for record in sink.records]
    assert origins == [
        Origin(6, 0.0, os.getpid(), "test.other"),
        Origin(7, 0.0, os.getpid(), "test.poems"),
    ]
    assert sink.texts == ["poem 3", "but this"]


@pytest.mark.parametrize(
    ("layout", "lines", "texts"),
    [
        ("human", ["a", "b"], [r"\d\d:\d\d:\d\d INFO     poems: a\n\d\d:\d\d:\d\d INFO     poems: b"]),
        ("bare", ["a", "b"], ["a", "b"]),
        ("human", ["a" * 40000, "b" * 40000], [".* INFO     poems: a+", ".* INFO     poems: b+"]),
    ],
    ids=["as one record", "each alone in a journal", "too long for one"],
)
def test_lines_come_many_at_once(layout: str, lines: list[str], texts: list[str]) -> None:
    """They have the same layout as records."""
    with _logged(layout) as sink:
        (handler,) = logging.getLogger().handlers
        assert isinstance(handler, LinesHandler)
        handler.handle_lines("poems", logging.INFO, 1e9, lines)
    for record, text in zip(sink.records, texts, strict=True):
        assert re.fullmatch(text, record.text.decode())
        assert record.origin == Origin(6, 1e9, os.getpid(), "poems")


def test_a_traceback_follows_its_message() -> None:
    """The traceback follows the message, and so does a requested stack."""
    with _logged() as sink:
        try:
            int("odd")
        except ValueError:
            logging.getLogger("test").exception("it failed", stack_info=True)
    lines = sink.texts[0].splitlines()
    assert lines[:2] == ["it failed", "Traceback (most recent call last):"]
    assert "ValueError: invalid literal for int() with base 10: 'odd'" in lines
    assert "Stack (most recent call last):" in lines


def test_warnings_are_logged() -> None:
    """Warnings of Python are in the log only."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with _logged() as sink:
            warnings.warn("an odd poem", stacklevel=1)
    assert "UserWarning: an odd poem" in sink.texts[0]


def test_a_mistake_in_a_logging_call_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """It does not reach the caller, and nothing is written."""
    with _logged() as sink:
        logging.getLogger("test").info("poem %d", "three")
    assert "--- Logging error ---" in capsys.readouterr().err
    assert sink.batches == []


def test_a_record_without_a_process_is_of_this_one() -> None:
    """`logging` can be configured not to record the process."""
    sink = ListSink()
    record = logging.makeLogRecord({"name": "a", "levelno": 20, "msg": "b", "process": None})
    SinkHandler(sink).handle(record)
    assert sink.records[0].origin.pid == os.getpid()


def test_a_record_that_was_made_by_hand_is_written() -> None:
    """Such a record may have no name."""
    sink = ListSink()
    SinkHandler(sink).handle(logging.makeLogRecord({"levelno": 20, "msg": "b"}))
    assert sink.texts == ["b"]


def test_what_cannot_be_encoded_is_spelled_out() -> None:
    """Lone surrogates, as in strange file names."""
    with _logged() as sink:
        logging.getLogger("test").info("no poem \udcff")
    assert sink.texts == ["no poem \\udcff"]


def test_a_sink_does_its_housekeeping_and_is_opened_anew() -> None:
    """The owner's thread does this while no other thread logs."""
    sink = ChildSink()
    handler = SinkHandler(sink)
    handler.housekeep()
    handler.reopen()
    assert sink.events == ["housekept", "reopened"]


def test_the_child_of_a_sink_is_reaped_and_no_other() -> None:
    """Children of the application are left to the application."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as others:
        child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {}, file_actions=[])
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        sink = ChildSink(child)
        SinkHandler(sink).housekeep()
        assert sink.events == [(child, 3 << 8), "housekept"]
        sink = ChildSink(others.pid)
        SinkHandler(sink).housekeep()
        assert sink.events == ["housekept"]
        others.communicate(b"\n")
