"""The input of the log: records of the workers, their output, and lines of the supervisor.

Each worker has two pipes: one for framed records, and one for its standard output and error. Only incomplete
records and lines are buffered here.

After each read, a pipe is not read for some milliseconds, and a busy worker fills it meanwhile. Waking the
supervisor for every line would cost several times as much as the line itself.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final, NamedTuple

from tamed.ipc.handoff import Data, Keep, decode, encode
from tamed.log.layout import Layout, Line
from tamed.log.plan import Sink
from tamed.log.record import Damage, LineReader, Record, RecordReader, encode_origin
from tamed.supervisor.loop import Reactor

__all__ = ["Intake", "LogTail"]

_LAST_LINES = 40  # records and printed lines of a worker that are kept until it has ended
_MOST_TAPPED = 2000  # lines
_LAST_SIZE = 8 * 1024  # characters of them, in the report of its end
_READ = 1 << 20  # bytes; the most that a pipe can hold, unless root has raised the limit
_PAUSE = 0.01  # seconds
_SEVERITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6}

_LEVELS: Final = {b"2": "CRITICAL", b"3": "ERROR", b"4": "WARNING", b"6": "INFO", b"7": "DEBUG"}
"""The levels by the first character of a head: the severity."""

_MOST_KEPT: Final = 300  # records
_LONGEST_KEPT: Final = 4096  # bytes of a record
_SIZE: Final = 256 * 1024  # bytes of all: in JSON six times as much at most, which is less than a message


class _Kept(NamedTuple):
    head: bytes
    text: bytes
    worker: int | None

    @property
    def size(self) -> int:
        return len(self.head) + len(self.text)


class LogTail:
    """Keeps the last records, each with the number of its worker, None for those of the supervisor.

    The operations process may not read the log file. All that is kept, and so each answer, is bounded.

    ``count`` is the number of records that were ever added. A long text loses its middle: a traceback ends
    with its error.
    """

    def __init__(self) -> None:
        self.count = 0
        self.by_level = dict.fromkeys(_LEVELS.values(), 0)
        self._kept: deque[_Kept] = deque()
        self._size = 0

    def add(self, records: Iterable[Record], worker: int | None) -> None:
        """Add records, in order."""
        for record in records:
            kept = _Kept(record.head, _without_middle(record.text), worker)
            self._kept.append(kept)
            self._size += kept.size
            self.count += 1
            self.by_level[_LEVELS.get(record.head[:1], "DEBUG")] += 1
        while len(self._kept) > _MOST_KEPT or self._size > _SIZE:
            self._size -= self._kept.popleft().size

    def resume(self, by_level: dict[str, int]) -> None:
        """Continue the counts of the previous program."""
        for level, count in by_level.items():
            self.by_level[level] += count

    def since(self, count: int) -> list[Data]:
        """Return the kept records after the first ``count``, the oldest first."""
        first = self.count - len(self._kept)
        return [_to_data(kept) for number, kept in enumerate(self._kept, first) if number >= count]


def _without_middle(text: bytes) -> bytes:
    if len(text) <= _LONGEST_KEPT:
        return text
    half = _LONGEST_KEPT // 2 - 16
    return b"%b\n    [...]\n    %b" % (text[:half], text[-half:])


def _to_data(kept: _Kept) -> Data:
    origin = Record(kept.head, kept.text).origin
    return {
        "time": origin.time,
        "severity": origin.severity,
        "logger": origin.name,
        "worker": kept.worker,
        "text": kept.text.decode(errors="replace"),
    }


class _Pipe:
    """The reading end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        if descriptor >= 0:
            os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self.is_watched = False

    def fileno(self) -> int:
        return self._descriptor

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def read(self) -> bytes | None:
        """Return the available data; empty at the end of the stream, None if there is no data now."""
        try:
            return os.read(self._descriptor, _READ)
        except BlockingIOError:
            return None

    def close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


class _Source:
    """The pipes of one worker, with their readers."""

    def __init__(self, pid: int, records: _Pipe, output: _Pipe) -> None:
        self.pid = pid
        self.records = records
        self.output = output
        self.record_reader = RecordReader()
        self.line_reader = LineReader()
        self.worker: int | None = None
        self.tapped: list[str] | None = None
        self.last: deque[str] = deque(maxlen=_LAST_LINES)

    def last_lines(self) -> list[str]:
        """Return the last records and lines, as many as the limit of characters allows."""
        sizes = accumulate(len(text) for text in reversed(self.last))
        count = sum(size <= _LAST_SIZE for size in sizes)
        return list(self.last)[len(self.last) - count :]


class Intake:
    """Reads the pipes of the workers and writes to ``sink``, in the layout of the log.

    ``instance`` is shown in the layouts that have fields. ``tail`` gets all that is written, if there is one.
    """

    def __init__(
        self,
        reactor: Reactor,
        sink: Sink,
        layout: Layout,
        clock: Callable[[], float] = time.time,
        *,
        instance: str = "",
    ) -> None:
        self._fields = {"instance": instance} if instance else {}
        self._reactor = reactor
        self.sink = sink
        self.tail: LogTail | None = None
        self._lost_before = 0  # lines lost by earlier sinks
        self._layout = layout
        self._clock = clock
        self._sources: dict[int, _Source] = {}

    @property
    def lost(self) -> int:
        """The number of lines that no sink accepted, including those of earlier programs."""
        return self._lost_before + self.sink.lost

    def log(self, level: str, text: str) -> None:
        """Write a line of the supervisor, after all input that arrived before it."""
        for source in list(self._sources.values()):
            self._take_records(source)
            self._take_output(source)
        self._write([self._record(level, "tamed", text, os.getpid())])

    def change_sink(self, sink: Sink, layout: Layout) -> None:
        """Close the current sink, and write to this one from now on."""
        self.sink.close()
        self._lost_before = self.lost
        self.sink, self._layout = sink, layout

    def close(self) -> None:
        """Close the sink."""
        self.sink.close()

    def export(self, keep: Keep) -> Data:
        """Return this as data, for the next program; complete lines are written before."""
        pipes = []
        for source in self._sources.values():
            self._write_lines(source, source.line_reader.take_all())
            pipes.append(
                {
                    "pid": source.pid,
                    "worker": source.worker,
                    "records": keep(source.records.fileno()) if source.records.is_open else -1,
                    "output": keep(source.output.fileno()) if source.output.is_open else -1,
                    "record": encode(source.record_reader.rest),
                    "line": encode(source.line_reader.rest),
                }
            )
        return {
            "pipes": pipes,
            "unreported": self.sink.export(),
            "lost": self.lost,
            "by_level": {} if self.tail is None else self.tail.by_level,
        }

    def resume(self, left: Data) -> None:
        """Resume from the state of the previous program."""
        self.sink.resume(left["unreported"])
        self._lost_before = left["lost"] - self.sink.lost
        if self.tail is not None:
            self.tail.resume(left["by_level"])
        for data in left["pipes"]:
            source = self.attach(data["pid"], data["records"], data["output"])
            source.worker = data["worker"]
            source.record_reader.rest = decode(data["record"])
            source.line_reader.rest = decode(data["line"])

    def has(self, pid: int) -> bool:
        """Return whether the pipes of this process are read."""
        return pid in self._sources

    def attach(self, pid: int, records: int, output: int) -> _Source:
        """Read a worker's records and output from these descriptors, and close them at its end."""
        source = self._sources[pid] = _Source(pid, _Pipe(records), _Pipe(output))
        self._watch(source.records, lambda: self._take_records(source))
        self._watch(source.output, lambda: self._take_output(source))
        return source

    def tap(self, pid: int) -> None:
        """Also keep the lines that a worker prints from now on."""
        if pid in self._sources:
            self._sources[pid].tapped = []

    def untap(self, pid: int) -> list[str]:
        """Return the lines that a worker printed since `tap`, and stop keeping them."""
        source = self._sources.get(pid)
        if source is None or source.tapped is None:
            return []
        lines, source.tapped = source.tapped, None
        return lines

    def identify(self, pid: int, worker: int) -> None:
        """Show the number of the worker of a pid in the lines that it prints."""
        self._sources[pid].worker = worker

    def detach(self, pid: int) -> list[str]:
        """Read the rest of the output of a worker that has ended; return its last lines.

        May be repeated, and called for any child. Output of processes that the worker left behind is no
        longer read.
        """
        source = self._sources.pop(pid, None)
        if source is None:
            return []
        self._take_records(source)
        self._take_output(source)
        self._write_records(source, source.record_reader.finish())
        self._write_lines(source, source.line_reader.finish())
        for pipe in (source.records, source.output):
            self._close(pipe)
        return source.last_lines()

    def _watch(self, pipe: _Pipe, take: Callable[[], None]) -> None:
        """Read a pipe whenever it has data, with a pause after each read."""

        def take_and_pause() -> None:
            self._reactor.unwatch(pipe)
            pipe.is_watched = False
            take()
            self._reactor.later(_PAUSE, lambda: self._watch(pipe, take))

        if pipe.is_open:
            self._reactor.watch(pipe, take_and_pause)
            pipe.is_watched = True

    def _take_records(self, source: _Source) -> None:
        data = source.records.read() if source.records.is_open else None
        if data:
            self._write_records(source, source.record_reader.feed(data))
        elif data is not None:
            self._close(source.records)

    def _take_output(self, source: _Source) -> None:
        data = source.output.read() if source.output.is_open else None
        if data:
            source.line_reader.feed(data, self._reactor.clock())
            self._take_lines_in_time(source)
        elif data is not None:
            self._close(source.output)

    def _take_lines_in_time(self, source: _Source) -> None:
        """Write complete lines when the worker pauses, so that lines that belong together stay together."""
        now = self._reactor.clock()
        self._write_lines(source, source.line_reader.take(now))
        due = source.line_reader.due
        if due is not None:
            self._reactor.later(max(0.0, due - now), lambda: self._take_lines_in_time(source))

    def _write_records(self, source: _Source, records: list[Record | Damage]) -> None:
        if records:
            whole = [
                self._record_of_damage(each, source) if isinstance(each, Damage) else each for each in records
            ]
            source.last += [_shortened(each.text.decode(errors="replace")) for each in whole[-_LAST_LINES:]]
            self._write(whole, source.worker)

    def _record_of_damage(self, damage: Damage, source: _Source) -> Record:
        text = (
            f"a record of worker {source.pid} was truncated: {damage.data.decode(errors='backslashreplace')}"
        )
        return self._record("WARNING", "tamed", text, source.pid, source.worker)

    def _write_lines(self, source: _Source, lines: list[bytes]) -> None:
        if lines:
            texts = [line.decode(errors="backslashreplace") for line in lines]
            source.last += map(_shortened, texts[-_LAST_LINES:])
            if source.tapped is not None:
                source.tapped += texts[: _MOST_TAPPED - len(source.tapped)]
            logger, worker = f"output[{source.pid}]", source.worker
            self._write([self._record("WARNING", logger, text, source.pid, worker) for text in texts], worker)

    def _write(self, records: list[Record], worker: int | None = None) -> None:
        self.sink.write(records)
        if self.tail is not None:
            self.tail.add(records, worker)

    def _record(self, level: str, logger: str, text: str, pid: int, worker: int | None = None) -> Record:
        now = self._clock()
        line = self._layout(Line(now, level, logger, text, pid, worker=worker, fields=self._fields))
        head = encode_origin(_SEVERITIES.get(level, 7), now, pid, logger)
        return Record(head, line.encode(errors="backslashreplace"))

    def _close(self, pipe: _Pipe) -> None:
        if pipe.is_watched:
            self._reactor.unwatch(pipe)
            pipe.is_watched = False
        if pipe.is_open:
            pipe.close()


def _shortened(text: str) -> str:
    """Return a long record's end: the last line of a traceback is its error."""
    return text if len(text) <= _LAST_SIZE // 2 else f"...{text[-_LAST_SIZE // 2 + 3 :]}"
