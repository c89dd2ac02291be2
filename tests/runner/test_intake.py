"""The input of the log."""

import os
from collections.abc import Iterator, Sequence

import pytest

from tamed.log.layout import layout_of
from tamed.log.record import Origin, Record, encode_origin, encode_record
from tamed.supervisor.intake import Intake
from tests.runner.world import HandReactor

REST = 0.01  # seconds in which a pipe is left alone after it was read


class ListSink:
    """Records the written batches."""

    child = 0

    takes_origin = True
    trouble = ""
    lost = 0

    def __init__(self) -> None:
        self.batches: list[list[Record]] = []

    @property
    def texts(self) -> list[str]:
        return [record.text.decode() for record in self.records]

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch]

    def write(self, records: Sequence[Record]) -> None:
        self.batches.append(list(records))

    def reopen(self) -> str:
        return ""

    def housekeep(self) -> None: ...
    def child_ended(self, pid: int, status: int) -> bool:
        return False

    def disown(self) -> None:
        return

    def export(self) -> list[object]:
        return []

    def resume(self, left: Sequence[object]) -> None:
        return

    def close(self) -> None: ...


class Fed:
    """An intake with one worker, whose pid is 7, and the writing ends of its pipes."""

    def __init__(self) -> None:
        self.reactor = HandReactor()
        self.sink = ListSink()
        self.intake = Intake(self.reactor, self.sink, layout_of("bare"), clock=lambda: 5.0)
        self.reading = []
        self.ends = []
        for _ in range(2):
            reading, writing = os.pipe()
            self.reading.append(reading)
            self.ends.append(os.fdopen(writing, "wb", buffering=0))
        self.records, self.output = self.ends
        self.intake.attach(7, *self.reading)

    def record(self, text: str, severity: int = 6) -> bytes:
        return encode_record(Record(encode_origin(severity, 1.5, 70, "poems"), text.encode()))

    def take(self) -> None:
        """Let the intake read the available data; it may have to end its pause first."""
        self.reactor.time.now += REST
        self.reactor.turn(0)
        self.reactor.turn(0)

    def close(self) -> None:
        for end in self.ends:
            end.close()
        if 7 in self.intake._sources:
            self.intake.detach(7)
        self.reactor.close()


@pytest.fixture
def fed() -> Iterator[Fed]:
    """An intake with a worker."""
    made = Fed()
    yield made
    made.close()


def test_records_are_written_as_they_were_logged(fed: Fed) -> None:
    """Records keep the worker's time, severity and text; those that arrive together are written together."""
    fed.records.write(fed.record("one") + fed.record("two\nlines", severity=3))
    fed.take()
    ((one, two),) = fed.sink.batches
    assert (one.origin, one.text) == (Origin(6, 1.5, 70, "poems"), b"one")
    assert (two.origin, two.text) == (Origin(3, 1.5, 70, "poems"), b"two\nlines")


def test_a_record_may_come_in_pieces(fed: Fed) -> None:
    """A record is written when it is complete."""
    data = fed.record("one")
    fed.records.write(data[:-2])
    fed.take()
    assert fed.sink.batches == []
    fed.records.write(data[-2:])
    fed.take()
    assert fed.sink.texts == ["one"]


def test_a_record_that_was_cut_off_is_reported(fed: Fed) -> None:
    """The received part of a killed worker's record is logged."""
    fed.records.write(fed.record("a long poem")[:-4])
    fed.intake.detach(7)
    ((record,),) = fed.sink.batches
    assert record.origin == Origin(4, 5.0, 7, "tamed")
    assert record.text.startswith(b"a record of worker 7 was truncated: ")


def test_lines_are_held_until_the_worker_pauses(fed: Fed) -> None:
    """A traceback that arrives in pieces is written as a whole, as warnings of the worker's output."""
    fed.output.write(b"Traceback\n")
    fed.take()
    fed.output.write(b"  more\nand \xff a p")
    fed.take()
    assert fed.sink.batches == []
    fed.reactor.advance(0.25)
    (lines,) = fed.sink.batches
    assert [line.origin for line in lines] == [Origin(4, 5.0, 7, "output[7]")] * 2
    assert [line.text for line in lines] == [b"Traceback", b"  more"]
    fed.output.write(b"art\n")
    fed.take()
    fed.reactor.advance(0.25)
    assert fed.sink.texts[2:] == ["and \\xff a part"]


def test_what_is_left_of_a_worker_is_taken_when_it_has_ended(fed: Fed) -> None:
    """All output is read at its end, including an unterminated last line."""
    fed.records.write(fed.record("last words"))
    fed.output.write(b"Fatal\nno newline")
    fed.intake.detach(7)
    assert fed.sink.texts == ["last words", "Fatal", "no newline"]


def test_one_that_left_a_child_behind_is_let_go(fed: Fed) -> None:
    """Another process still holds the pipe open, but it is not read any more."""
    fed.intake.detach(7)
    with pytest.raises(BrokenPipeError):
        fed.output.write(b"hello\n")


def test_a_pipe_that_was_closed_is_let_go(fed: Fed) -> None:
    """A worker may close its output and go on; its records are still read."""
    fed.output.close()
    fed.take()
    fed.records.write(fed.record("one"))
    fed.take()
    fed.records.close()
    fed.take()
    fed.take()
    fed.intake.detach(7)
    assert fed.sink.texts == ["one"]


def test_a_pipe_that_was_read_is_left_alone_for_a_while(fed: Fed) -> None:
    """After the pause, all data that has arrived is read at once."""
    fed.records.write(fed.record("one"))
    fed.reactor.turn(0)
    for text in ("two", "three"):
        fed.records.write(fed.record(text))
        fed.reactor.turn(0)
    assert fed.sink.texts == ["one"]
    fed.take()
    assert [len(batch) for batch in fed.sink.batches] == [1, 2]


def test_what_the_supervisor_says_comes_after_what_came_before(fed: Fed) -> None:
    """All earlier records of the worker are written before it."""
    fed.records.write(fed.record("one"))
    fed.output.write(b"printed\n")
    fed.intake.log("INFO", "stopping")
    fed.records.close()
    fed.intake.log("INFO", "stopped")
    fed.reactor.turn(0)
    fed.reactor.advance(0.25)
    assert fed.sink.texts == ["one", "stopping", "stopped", "printed"]


@pytest.mark.parametrize(
    ("level", "severity"), [("CRITICAL", 2), ("ERROR", 3), ("WARNING", 4), ("INFO", 6), ("DEBUG", 7)]
)
def test_the_supervisor_has_lines_of_its_own(fed: Fed, level: str, severity: int) -> None:
    """They have the supervisor's pid, and the syslog severity of their level."""
    fed.intake.log(level, "ready")
    ((record,),) = fed.sink.batches
    assert (record.origin, record.text) == (Origin(severity, 5.0, os.getpid(), "tamed"), b"ready")
