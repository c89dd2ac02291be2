"""The places for the log."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tamed.errors import TamedError
from tamed.log.plan import LogPlan
from tamed.log.record import Record, encode_origin
from tamed.log.sink import StreamSink, open_sink
from tests.patience import PATIENCE

RECORDS = [
    Record(encode_origin(6, 1.5, 7, "poems"), b"a line"),
    Record(encode_origin(3, 2.5, 7, "poems"), b"two\nlines"),
]
LINES = b"a line\ntwo\nlines\n"


def test_a_file_has_the_text_of_the_records(tmp_path: Path) -> None:
    """The file has the records line by line, in their layout."""
    path = tmp_path / "log"
    with closing(open_sink(LogPlan("file", path=str(path)), "poetry", None)) as sink:
        sink.write(RECORDS)
        sink.housekeep()
        assert sink.child == 0
        assert not sink.child_ended(4711, 0)
    assert path.read_bytes() == LINES


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    """Later records are in the new file."""
    path = tmp_path / "log"
    with closing(open_sink(LogPlan("file", path=str(path)), "poetry", None)) as sink:
        sink.write(RECORDS[:1])
        path.rename(tmp_path / "old")
        sink.reopen()
        sink.write(RECORDS[:1])
    assert path.read_bytes() == (tmp_path / "old").read_bytes() == b"a line\n"


def test_a_file_is_rotated_as_planned(tmp_path: Path) -> None:
    """It is rotated by its size, and the configured number of old files stays."""
    path = tmp_path / "log"
    with closing(open_sink(LogPlan("file", path=str(path), rotate=10, keep=1), "poetry", None)) as sink:
        for _ in range(5):
            sink.write(RECORDS[:1])
    assert len(list(tmp_path.glob("log*"))) == 2


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """The error is raised at the start."""
    with pytest.raises(TamedError, match="none"):
        open_sink(LogPlan("file", path=str(tmp_path / "none" / "log")), "poetry", None)


@contextmanager
def _standard_error() -> Iterator[int]:
    """Replace standard error with a pipe, and yield its reading end."""
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield reading
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(reading)


def test_standard_error_has_the_text_of_the_records() -> None:
    """Standard error cannot be reopened, and has no compressor."""
    with _standard_error() as reading:
        with closing(open_sink(LogPlan("stderr"), "poetry", None)) as sink:
            sink.write(RECORDS)
            sink.reopen()
            sink.housekeep()
            assert sink.child == 0
            assert not sink.child_ended(4711, 0)
        assert os.read(reading, 4096) == LINES


def test_what_the_log_says_of_itself_is_laid_out() -> None:
    """Lines of the sink itself have the same layout as others."""
    with _standard_error() as reading:
        sink = open_sink(LogPlan("stderr", layout="plain"), "poetry", None)
        sink._patience = 0.0  # type: ignore[attr-defined]
        os.set_blocking(2, False)
        _fill(2)
        sink.write(RECORDS)
        os.set_blocking(reading, False)
        _drain(reading)
        sink.close()
        told = _drain(reading).decode()
    assert told.startswith("a line\n")
    assert told.endswith(" WARNING tamed: 2 lines were lost: no process read them\n")


def _fill(descriptor: int) -> None:
    try:
        while True:
            os.write(descriptor, b"x" * 4096)
    except BlockingIOError:
        return


def _drain(descriptor: int) -> bytes:
    data = b""
    try:
        while piece := os.read(descriptor, 1 << 16):
            data += piece
    except BlockingIOError:
        pass
    return data


def test_syslog_gets_messages(tmp_path: Path) -> None:
    """A message has the severity, the time, the daemon's name and the worker's pid."""
    path = tmp_path / "syslog"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        daemon.settimeout(PATIENCE)
        plan = LogPlan("syslog", address=f"unix:{path}")
        with closing(open_sink(plan, "poetry", None)) as sink:
            sink.write(RECORDS[:1])
            sink.housekeep()
            sink.reopen()
            assert not sink.child_ended(4711, 0)
        message = daemon.recv(4096)
    assert message.startswith(b"<30>1 1970-01-01T")
    assert b" poetry 7 " in message
    assert message.rstrip().endswith(b"a line")


def test_the_journal_gets_fields(tmp_path: Path) -> None:
    """An entry has the severity, the logger and the worker's pid."""
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        daemon.settimeout(PATIENCE)
        with closing(open_sink(LogPlan("journal"), "poetry", None)) as sink:
            sink.path = path  # type: ignore[attr-defined]
            sink.write(RECORDS[:1])
            sink.housekeep()
        fields = dict(line.split(b"=", 1) for line in daemon.recv(4096).splitlines())
    assert fields == {
        b"SYSLOG_IDENTIFIER": b"poetry",
        b"MESSAGE": b"a line",
        b"PRIORITY": b"6",
        b"LOGGER": b"poems",
        b"SYSLOG_PID": b"7",
    }


# Writing to a descriptor that somebody reads.


class Stream:
    """A writer that does not wait, and the other end."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.writer = StreamSink(self.writing, lambda text: f"({text})\n".encode(), patience=0.0)

    def read(self) -> bytes:
        return _drain(self.reading)

    def close(self) -> None:
        os.close(self.writing)
        if self.reading >= 0:
            os.close(self.reading)


@pytest.fixture
def stream() -> Iterator[Stream]:
    """A pipe and its writer."""
    with closing(Stream()) as made:
        yield made


def test_lines_are_written(stream: Stream) -> None:
    """Lines are written unchanged."""
    stream.writer.put([b"one\n", b"two\n"])
    assert stream.read() == b"one\ntwo\n"


def test_a_line_is_not_torn(stream: Stream) -> None:
    """A partly written line is completed when the reader goes on, and lost lines are counted."""
    long = b"x" * 300_000 + b"\n"
    stream.writer.put([long, b"lost\n", b"lost\n"])
    stream.writer.put([b"lost\n"])
    data = stream.read()
    assert data == long[: len(data)]
    for _ in range(10):
        stream.writer.housekeep()
        data += stream.read()
    assert data == long + b"(3 lines were lost: no process read them)\n"
    stream.writer.put([b"one\n"])
    assert stream.read() == b"one\n"


def test_a_reader_that_is_gone_is_no_reason_to_stop(stream: Stream) -> None:
    """The lines are dropped, and nothing is raised."""
    os.close(stream.reading)
    stream.reading = -1
    stream.writer.put([b"one\n"])
    stream.writer.housekeep()
    assert stream.writer.lost == 0


def test_a_full_pipe_is_not_waited_for_twice(stream: Stream) -> None:
    """The first line is kept, because it may still be written whole, and later lines are counted."""
    os.set_blocking(stream.writing, False)
    _fill(stream.writing)
    stream.writer.put([b"one\n", b"two\n"])
    stream.writer.put([b"three\n"])
    assert b"one" not in stream.read()
    stream.writer.housekeep()
    assert stream.read() == b"one\n(2 lines were lost: no process read them)\n"
    assert stream.writer.lost == 2
