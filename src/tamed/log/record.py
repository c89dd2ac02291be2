r"""The protocol for log records from a worker to the supervisor: one stream for each worker, with frames.

A record may have many lines, such as a traceback, and must stay whole although several workers write.
So every worker has a stream of its own, a pipe or a stream socket, and each record is framed::

    \xff SEVERITY " " TIME " " PID " " NAME \xfe TEXT \xfd

The numbers are in ASCII, and name and text are in UTF-8, in which none of those three bytes occurs. So
a record always begins with ``\xff`` and ends with ``\xfd``: the reader resynchronises at the next record.
That is necessary when a worker is killed in the middle of a write, or a forked grandchild writes in between.

The supervisor reads the records of all workers, so it does little for each: it splits the bytes of a read
into records, writes a text as the bytes that it received, and parses an origin only for a log with fields.

Standard error, which C libraries and a crashing interpreter print to, has a stream of its own: see
`LineReader`.

Rejected: datagrams or packets, which separate records by themselves. Their size is limited to a socket
buffer, which a traceback can exceed, and each short line costs a buffer of its own. Also rejected: length
fields before name and text, which add no information to the three bytes.
"""

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Damage", "LineReader", "Origin", "Record", "RecordReader", "encode_origin", "encode_record"]

MAX_NAME = 255  # bytes
MAX_TEXT = 1 << 20  # bytes
_LATEST = 1e11  # seconds since the epoch; a later time, or NaN, is invalid
_FRAME = rb"([0-7] -?\d{1,17} \d{1,10} [^\xfe\xfd]*)\xfe([^\xfd]*)\xfd(.*)"
_LONGEST = MAX_NAME + MAX_TEXT + 40  # bytes of a frame


class Origin(NamedTuple):
    """The metadata of a record.

    ``severity`` is that of syslog (RFC 5424, 6.2.1): 0 is an emergency, 3 an error, 4 a warning, 6
    information and 7 debugging. ``time`` is in seconds since the epoch, ``pid`` is that of the process, and
    ``name`` the logger's name.
    """

    severity: int
    time: float
    pid: int
    name: str


class Record(NamedTuple):
    """One record of the log: one or more lines in UTF-8, without a newline at the end.

    ``head`` is its origin as `encode_origin` writes it.
    """

    head: bytes
    text: bytes

    @property
    def origin(self) -> Origin:
        """The origin, decoded from ``head``."""
        severity, moment, pid, name = self.head.split(b" ", 3)
        return Origin(int(severity), int(moment) / 1e6, int(pid), name.decode(errors="replace"))


class Damage(NamedTuple):
    """Bytes of a stream that are not a whole record: a worker was killed while it wrote."""

    data: bytes


def encode_origin(severity: int, time: float, pid: int, name: str) -> bytes:
    """Encode an origin for a `Record`; an invalid time becomes 0, and too long a name is truncated."""
    moment = time * 1e6 if -_LATEST < time < _LATEST else 0.0
    return b"%d %d %d %b" % (severity, moment, pid, _encode_name(name))


@lru_cache(maxsize=64)
def _encode_name(name: str) -> bytes:
    text = str(name)  # None in a LogRecord that the application created itself
    return text.encode(errors="backslashreplace")[:MAX_NAME]


def encode_record(record: Record) -> bytes:
    """Encode a record as a frame. A text that is too long loses its middle."""
    head, text = record
    return b"\xff%b\xfe%b\xfd" % (head, text if len(text) <= MAX_TEXT else _shortened(text))


def _shortened(text: bytes) -> bytes:
    half = (MAX_TEXT - 64) // 2  # 64 bytes are for the line about it
    begin, end = (part.decode(errors="ignore").encode() for part in (text[:half], text[-half:]))
    left_out = len(text) - len(begin) - len(end)
    return b"%b\n... %d bytes are left out here ...\n%b" % (begin, left_out, end)


class RecordReader:
    """Parses the bytes of one stream into records, as they arrive. It buffers one record at most.

    ``rest`` is the beginning of that record: another reader can be created from it, to continue.
    """

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest
        self._frame = re.compile(_FRAME, re.DOTALL)

    def feed(self, data: bytes) -> list[Record | Damage]:
        """Return the records that are complete with these bytes, in order."""
        before, *frames = (self.rest + data).split(b"\xff")
        self.rest = b"\xff" + frames.pop() if frames and _may_go_on(frames[-1]) else b""
        found: list[Record | Damage] = []
        # Joined: invalid data may contain many bytes that look like the beginning of a frame.
        damaged = [before]
        for frame in frames:
            whole = self._frame.match(frame)
            if whole is None:
                damaged.append(b"\xff" + frame)
                continue
            head, text, behind = whole.groups()
            found += [*_damage(damaged), Record(head, text)]
            damaged = [behind]
        return found + _damage(damaged)

    def finish(self) -> list[Record | Damage]:
        """Return the rest at the end of the stream: nothing, or the beginning of a record as `Damage`."""
        rest, self.rest = self.rest, b""
        return [Damage(rest)] if rest else []


def _damage(pieces: list[bytes]) -> list[Record | Damage]:
    data = b"".join(pieces)
    return [Damage(data)] if data else []


def _may_go_on(frame: bytes) -> bool:
    """Return whether these bytes can be the beginning of a record."""
    return b"\xfd" not in frame and len(frame) <= _LONGEST


_MORE = b" [...]"  # ends a piece of a line that continues in the next one
_LINE_LIMIT = 16 * 1024  # bytes
_HELD_LIMIT = 256 * 1024  # bytes
_PAUSE = 0.05  # seconds
_PATIENCE = 0.5  # seconds


class LineReader:
    """Splits the bytes of one stream into lines, as they arrive, with the time on a monotonic clock.

    Lines are without their newline. One longer than 16 KiB is cut into pieces; all but the last piece end in
    ``[...]``. The buffer is limited to 256 KiB and the bytes that were fed last. ``rest`` is the line that
    has not ended: another reader can be created from it, to continue.
    """

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest
        self._lines: list[bytes] = []
        self._held = 0
        self._begun = self._latest = 0.0

    def feed(self, data: bytes, now: float) -> None:
        """Add bytes that arrived at this time."""
        if not self._lines and not self.rest:
            self._begun = now
        self._latest = now
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self._hold(_pieces(line.removesuffix(b"\r")))
        if len(self.rest) > _LINE_LIMIT:
            *pieces, self.rest = _pieces(self.rest)
            self._hold(pieces)

    @property
    def due(self) -> float | None:
        """The time at which :meth:`take` returns lines; None if there are no lines."""
        if not self._lines:
            return None
        if self._held > _HELD_LIMIT:
            return self._begun
        return min(self._latest + _PAUSE, self._begun + _PATIENCE)

    def take(self, now: float) -> list[bytes]:
        """Return the lines that are due, to be written as one record; a line without its end is kept."""
        due = self.due
        if due is None or now < due:
            return []
        self._begun = now
        return self.take_all()

    def take_all(self) -> list[bytes]:
        """Return all lines that have ended, due or not."""
        lines, self._lines, self._held = self._lines, [], 0
        return lines

    def finish(self) -> list[bytes]:
        """Return the remaining lines at the end of the stream, with the one that has no newline."""
        if self.rest:
            self._hold(_pieces(self.rest))
            self.rest = b""
        return self.take_all()

    def _hold(self, lines: list[bytes]) -> None:
        self._lines += lines
        self._held += sum(map(len, lines))


def _pieces(line: bytes) -> list[bytes]:
    """Cut a line that is too long into pieces, but not within a character of UTF-8."""
    pieces = []
    while len(line) > _LINE_LIMIT:
        end = _LINE_LIMIT
        while end > _LINE_LIMIT - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(line[:end] + _MORE)
        line = line[end:]
    return [*pieces, line]
