"""A worker's handler for the log."""

import asyncio
import fcntl
import logging
import os
import select
import threading
from collections.abc import Iterator

import pytest

from tamed.log.layout import layout_of
from tamed.log.record import Damage, Origin, Record, RecordReader
from tamed.worker.log_handler import PipeHandler
from tests.patience import PATIENCE

_SMALL = 4096  # bytes, the least that a pipe can hold


class Piped:
    """A handler and the supervisor's end of its pipe, which holds as little as possible."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, _SMALL)
        os.set_blocking(self.reading, False)
        self.handler = PipeHandler(self.writing)
        self.reader = RecordReader()

    def log(self, text: str, *arguments: object, level: int = logging.INFO) -> None:
        record = logging.LogRecord("poems", level, __file__, 1, text, arguments, None)
        self.handler.handle(record)

    def read(self) -> list[Record | Damage]:
        try:
            return self.reader.feed(os.read(self.reading, 1 << 20))
        except BlockingIOError:
            return []

    def texts(self) -> list[str]:
        return [each.text.decode() for each in self.read() if isinstance(each, Record)]

    def hang_up(self) -> None:
        os.close(self.reading)
        self.reading = -1

    def close(self) -> None:
        for end in (self.reading, self.writing):
            if end >= 0:
                os.close(end)


@pytest.fixture
def piped() -> Iterator[Piped]:
    """A handler on a pipe."""
    made = Piped()
    yield made
    made.close()


def test_a_record_is_in_the_pipe_when_the_call_returns(piped: Piped) -> None:
    """It needs neither a thread nor a loop, and is not lost if the process dies then."""
    piped.log("poem %d", 3, level=logging.ERROR)
    (record,) = piped.read()
    assert isinstance(record, Record)
    assert record.origin._replace(time=0.0) == Origin(3, 0.0, os.getpid(), "poems")
    assert record.text == b"poem 3"


def test_lines_that_come_together_are_one_record(piped: Piped) -> None:
    """The supervisor receives them in their final layout."""
    piped.handler.layout = layout_of("plain")
    piped.handler.handle_lines("poems", logging.INFO, 1e9, ["a", "b"])
    (record,) = piped.read()
    assert isinstance(record, Record)
    assert record.origin == Origin(6, 1e9, os.getpid(), "poems")
    assert [line.partition(b"INFO ")[2] for line in record.text.splitlines()] == [b"poems: a", b"poems: b"]


def test_what_the_pipe_does_not_take_is_kept_in_order(piped: Piped) -> None:
    """The queue is sent when there is room, also a record that is longer than the pipe."""
    texts = ["first", "x" * 3 * _SMALL, "last"]
    for text in texts:
        piped.log(text)
    got: list[str] = []
    while len(got) < 3:
        got += piped.texts()
        piped.handler._send_queued()
    assert got == texts


def test_the_end_of_a_process_waits_for_its_log(piped: Piped) -> None:
    """All queued records are sent, while the supervisor reads."""
    texts = ["x" * _SMALL, "y" * _SMALL, "z"]
    for text in texts:
        piped.log(text)
    os.set_blocking(piped.reading, True)
    got: list[str] = []

    def read() -> None:
        while len(got) < 3:
            got.extend(piped.texts())

    thread = threading.Thread(target=read)
    thread.start()
    piped.handler.flush()
    thread.join()
    assert got == texts


def test_a_supervisor_that_is_gone_does_no_harm(piped: Piped) -> None:
    """Later records are lost; logging neither blocks nor raises."""
    piped.log("x" * 3 * _SMALL)
    piped.log("y")
    piped.hang_up()
    piped.handler.flush()
    piped.log("z")
    assert piped.handler._send_queued()


def test_a_supervisor_that_is_slow_gets_everything(piped: Piped) -> None:
    """Logging faster than it reads blocks, and no record is lost."""
    piped.handler._outbox._limit = 4 * _SMALL
    got: list[str] = []

    def read() -> None:
        while len(got) < 50:
            select.select([piped.reading], [], [], PATIENCE)
            got.extend(piped.texts())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        piped.log(f"{number} " + "x" * _SMALL)
    piped.handler.flush()
    reader.join(PATIENCE)
    assert [int(text.split()[0]) for text in got] == list(range(50))


def test_a_supervisor_that_takes_nothing_holds_nobody_up_for_long(piped: Piped) -> None:
    """Only the first record waits; records are sent again when there is room."""
    piped.handler._outbox._limit = 2 * _SMALL
    for _ in range(5):
        piped.log("x" * _SMALL)
    assert piped.handler._is_stalled
    while not piped.handler._send_queued():
        piped.read()
    assert not piped.handler._is_stalled


def test_what_is_too_much_is_counted(piped: Piped) -> None:
    """Dropped records are counted, and the count is logged when there is room again."""
    piped.handler._outbox._limit = 2 * _SMALL
    for _ in range(5):
        piped.log("x" * _SMALL)
    got: list[Record | Damage] = []
    while not piped.handler._send_queued():
        got += piped.read()
    got += piped.read()
    last = got[-1]
    assert isinstance(last, Record)
    assert (last.origin.severity, last.origin.name) == (4, "tamed")
    assert b"did not accept them" in last.text


def test_a_mistake_in_a_logging_call_does_not_reach_the_caller(
    piped: Piped, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is reported as by `logging`, and nothing is sent."""
    piped.log("poem %d", "three")
    assert "--- Logging error ---" in capsys.readouterr().err
    assert piped.read() == []


@pytest.mark.anyio
async def test_the_loop_sends_what_was_kept(piped: Piped) -> None:
    """This includes records of other threads, and those queued before the loop ran."""
    got: list[str] = []
    is_there = asyncio.Event()

    def read() -> None:
        got.extend(piped.texts())
        if len(got) == 4:
            is_there.set()

    piped.log("x" * _SMALL)
    piped.log("y" * _SMALL)
    loop = asyncio.get_running_loop()
    with piped.handler.open():
        piped.log("z" * _SMALL)
        await asyncio.to_thread(piped.log, "last")
        loop.add_reader(piped.reading, read)
        await asyncio.wait_for(is_there.wait(), PATIENCE)
        loop.remove_reader(piped.reading)
    assert [text[0] for text in got] == ["x", "y", "z", "l"]
    assert not piped.handler._waiting


@pytest.mark.anyio
async def test_without_room_the_loop_is_left_as_it_was(piped: Piped) -> None:
    """The handler stops watching its pipe before the loop ends."""
    piped.log("x" * _SMALL)
    piped.log("y" * _SMALL)
    with piped.handler.open():
        assert piped.handler._waiting
    assert not piped.handler._waiting
    assert not asyncio.get_running_loop().remove_writer(piped.writing)
    piped.handler._wait_for_room()
    assert not piped.handler._waiting


@pytest.mark.anyio
async def test_with_room_the_loop_has_nothing_to_watch(piped: Piped) -> None:
    """A writable pipe would wake the loop all the time."""
    with piped.handler.open():
        piped.log("one")
        assert not piped.handler._waiting
    assert piped.texts() == ["one"]
