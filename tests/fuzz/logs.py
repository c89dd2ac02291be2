"""Targets: the way of the log: what comes in from the workers, and what somebody reads again later."""

import gzip
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from tamed._os.text import shown
from tamed.log.layout import Line, bare, coloured, human, json, plain
from tamed.log.reader import LogReader
from tamed.log.record import Damage, LineReader, Record, RecordReader, encode_record
from tamed.log.syslog import SyslogMessage, classical, rfc5424
from tamed.supervisor.intake import Intake
from tamed.supervisor.loop import Reactor
from tests.fuzz.engine import Target

__all__ = ["TARGETS", "TERMINAL"]

TERMINAL: Final = frozenset(map(chr, (*range(9), *range(11, 32), *range(127, 160)))) - {"\t"}
_NOT_INDENTED: Final = re.compile(r"\n(?!    )")

_STEP: Final = b"\0\0"
"""Between what comes at different times; the first byte says which way, or which file it is."""

_MOST_STEPS: Final = 32
_PID: Final = 7
_PIPE: Final = 1 << 20
_LONGEST: Final = 1 << 20


def _records(data: bytes) -> object:
    """However it comes in pieces, each record is found, and each can be written in any form of log."""
    whole, pieces = RecordReader(), RecordReader()
    found = whole.feed(data)
    half = len(data) // 2
    in_pieces = [*pieces.feed(data[:half]), *pieces.feed(data[half:])]
    assert _of(found) == _of(in_pieces)
    assert len(whole.rest) <= len(data)
    for record in _of(found):
        origin = record.origin
        message = SyslogMessage(
            origin.severity, origin.time, "app", str(origin.pid), record.text.decode(errors="replace")
        )
        rfc5424(message, "host")
        classical(message)
        again = RecordReader().feed(encode_record(record))
        assert again == [record]
    return len(found), len(_of(found))


def _of(found: "list[Record | Damage]") -> list[Record]:
    return [each for each in found if isinstance(each, Record)]


def _output(data: bytes) -> object:
    """What a worker prints comes out as lines, of which none is long and nothing is lost."""
    reader = LineReader()
    half = len(data) // 3
    reader.feed(data[:half], 0.0)
    reader.feed(data[half:], 0.01)
    lines = [*reader.take(0.2), *reader.finish()]
    assert all(len(line) <= 17 * 1024 for line in lines)
    assert reader.rest == b""
    kept = b"".join(line.removesuffix(b" [...]") for line in lines)
    assert len(kept) >= len(data.replace(b"\n", b"").replace(b"\r", b"").replace(b" [...]", b""))
    return len(lines)


def _laid_out(data: bytes) -> object:
    """Whatever a record says, its line does nothing to a terminal, and looks like no other record."""
    text = data.decode("utf-8", "backslashreplace")
    name, _, message = text.partition("\n")
    line = Line(1_800_000_000.0, "INFO", name, message, os.getpid(), traceback=text)
    for layout in (human, plain):
        laid = layout(line)
        assert TERMINAL.isdisjoint(laid)
        assert not _NOT_INDENTED.search(laid)
    assert "\n" not in json(line)
    assert TERMINAL.isdisjoint(json(line))
    assert TERMINAL.isdisjoint(bare(line))
    coloured(line)
    return None


class _Sink:
    """Keeps what is written."""

    child = 0
    takes_origin = True
    trouble = ""
    lost = 0

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, records: Sequence[Record]) -> None:
        self.records += records

    def reopen(self) -> str:
        return ""

    def housekeep(self) -> None:
        return

    def child_ended(self, pid: int, status: int) -> bool:
        return False

    def disown(self) -> None:
        return

    def export(self) -> list[Any]:
        return []

    def resume(self, left: Sequence[Any]) -> None:
        return

    def close(self) -> None:
        return


class _Worker:
    """The pipes of one worker, an intake that reads them, and the next program's after an exec."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sink = _Sink()
        self._reactor = Reactor(lambda: self.now)
        self._intake = self._new()
        (records, self._records), (output, self._output) = os.pipe(), os.pipe()
        for end in (self._records, self._output):
            os.set_blocking(end, False)
        self._intake.attach(_PID, records, output)

    def _new(self) -> Intake:
        return Intake(self._reactor, self.sink, plain, clock=lambda: 5.0)

    def write(self, data: bytes, *, output: bool) -> bytes:
        """Write as a worker does; return what there was room for."""
        written = data[: os.write(self._output if output else self._records, data)] if data else b""
        self.pass_time(0.0)
        return written

    def pass_time(self, seconds: float) -> None:
        """Have the intake take what is there: it may have to end its rest before it does."""
        self.now += 0.02 + seconds
        self._reactor.turn(0)
        self._reactor.turn(0)

    def upgrade(self) -> None:
        """Have another intake go on."""
        left = self._intake.export(os.dup)
        self._intake.detach(_PID)
        self._intake = self._new()
        self._intake.resume(left)

    def end(self) -> None:
        """Have the worker end."""
        os.close(self._records)
        os.close(self._output)
        self.pass_time(1.0)
        self._intake.detach(_PID)
        self._reactor.close()


def _taken_in(data: bytes) -> object:
    """Each record comes out as it was framed, in order, and what is none in lines that do nothing."""
    worker = _Worker()
    framed = b""
    try:
        for step in data.split(_STEP)[:_MOST_STEPS]:
            how, written = (step[0], step[1:]) if step else (0, b"")
            if how >= 0xF0:
                worker.pass_time(how & 0xF)
            is_output = bool(how & 1)
            written = worker.write(written[: 1 << 16], output=is_output)
            framed += b"" if is_output else written
    finally:
        worker.end()
    records = worker.sink.records
    whole = _of(RecordReader().feed(framed))
    rest = iter(records)
    assert all(any(each == record for each in rest) for record in whole)
    ours = [record for record in records if record not in set(whole)]
    for record in ours:
        text = record.text.decode()
        assert TERMINAL.isdisjoint(text)
        assert not _NOT_INDENTED.search(text)
    assert sum(len(record.text) for record in records) <= 8 * len(data) + 200 * len(records)
    return len(whole), len(ours)


class _Logs:
    """A folder in which anything may be in the place of a log and its old files."""

    @cached_property
    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))

    def __call__(self, data: bytes) -> object:
        """What is there is read in lines of a bounded length, or refused; it is safe to be shown."""
        log = self._folder / "app.log"
        try:
            log.write_bytes(b"the latest\n")
            steps = data.split(_STEP)[:_MOST_STEPS]
            half = len(steps) // 2
            for step in steps[:half]:
                self._put(step)
            with closing(LogReader(log, os.geteuid())) as reader:
                lines = reader.last(20)
                assert len(lines) <= 20
                for step in steps[half:]:
                    self._put(step)
                    lines += reader.more()
            assert all(len(line) <= _LONGEST for line in lines)
            assert all(TERMINAL.isdisjoint(shown(line.decode(errors="backslashreplace"))) for line in lines)
            return len(lines)
        finally:
            shutil.rmtree(self._folder)
            self._folder.mkdir()

    def _put(self, step: bytes) -> None:
        """Put something into the place that the first byte names, or rotate."""
        how, content = (step[0], step[1:]) if step else (0, b"")
        number = how & 7
        old = f".{number}{'.gz' if how & 8 else ''}" if number else ""
        path = self._folder / f"app.log{old}"
        if how >= 0xF0 and (self._folder / "app.log").exists():
            (self._folder / "app.log").replace(path)
        elif how >= 0xE0:
            path.unlink(missing_ok=True)
            os.mkfifo(path)
        elif how >= 0xD0:
            path.unlink(missing_ok=True)
            path.symlink_to("/dev/zero")
        elif path.is_file() or not path.exists():
            with path.open("ab") as file:
                file.write(gzip.compress(content, 1, mtime=0) if how & 0x10 else content)


_RECORD: Final = b"\xff6 1800000000000000 123 app\xfea message\xfd"

TARGETS: Final = (
    Target(
        "log records",
        _records,
        (
            b"\xff6 1800000000000000 123 app\xfea message\xfd",
            b"\xff3 -62135596800000000 1 a.b\xfeTraceback\n  line\xfd\xff4 0 1 \xfe\xfd",
        ),
        (b"\xff", b"\xfe", b"\xfd", b"6 ", b"-99999999999999999", b"99999999999999999", b" 1 "),
    ),
    Target(
        "output",
        _output,
        (b"one line\nand another\r\n", b"Traceback\n  File\n", b"x" * 20_000),
        (b"\n", b"\r\n", b" [...]"),
    ),
    Target(
        "log line",
        _laid_out,
        (b"app\nGET /index.html", b"app\n\x1b[31mred\x07", b"a\nb\nc"),
        (b"\x1b]0;", b"\n", b"\xc2\x85", b"\xe2\x80\xa8"),
    ),
    Target(
        "log intake",
        _taken_in,
        (
            b"\0" + _RECORD + b"\0\0\1a line\n\0\0\0" + _RECORD,
            b"\0" + _RECORD[:9] + b"\0\0\1Traceback\n  File\0\0\x81x\n\0\0\0" + _RECORD[9:],
            b"\0\xff\xffnonsense\xfd" + _RECORD + b"\xfe\xfd\0\0\xf1",
        ),
        (b"\xff", b"\xfe", b"\xfd", b"6 ", _STEP, b"\0\0\1", b"\0\0\xf5", b"\0\0\x80", b"\n", _RECORD),
    ),
    Target(
        "log reader",
        _Logs(),
        (
            b"\0one\ntwo\n\0\0\1old\n\0\0\x1aolder\n\0\0\xf1\0\0\0new\n",
            b"\x09" + gzip.compress(b"packed\n", 1, mtime=0) + b"\0\0\xd2\0\0\xe3\0\0\0more\n",
            b"\x19a\n\0\0\x09" + gzip.compress(b"b\n", 1, mtime=0)[:12] + b"\0\0\xf2\0\0\0c\n",
        ),
        (
            _STEP,
            b"\n",
            b"\0\0\0a\n",
            b"\0\0\x19b\n",
            b"\0\0\xf1",
            b"\0\0\xe2",
            b"\x1f\x8b\x08\0",
            b"\0\0\xff\xff",
        ),
        (OSError,),
        weight=0.7,
    ),
)
