r"""How a worker's log records reach the supervisor: one stream a worker, records framed in it.

A record may have many lines, a traceback above all, and must come out whole although several workers write.
So every worker has a stream of its own, a pipe or a stream socket, on which only it writes, and each record
is framed::

    \\xff SEVERITY " " TIME " " PID " " NAME \\xfe TEXT \\xfd

The numbers are in ASCII, and name and text are in UTF-8, in which none of those three bytes occurs. So
``\\xff`` is where a record begins and ``\\xfd`` where it ends, always: whatever happened to a stream, the
reader is in step again at the next record. That matters when a worker is killed in the middle of a write, or
a forked grandchild writes in between.

The supervisor reads the records of all workers, so it does little for each: the records of a read are found
by splitting it, a text is written as the bytes that came, and an origin is only taken apart for a log that
has fields.

What is printed to standard error, by C libraries and a dying interpreter, goes another way: see ``_lines``.

Rejected: datagrams or packets, which keep records apart by themselves. They are limited to the size of a
socket buffer, which a traceback can exceed, and cost a buffer of their own for each short
line. And lengths in front of name and text: they tell nothing that the three bytes do not.
"""

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["Damage", "Origin", "Record", "RecordReader", "encode_origin", "encode_record"]

MAX_NAME = 255  # bytes
MAX_TEXT = 1 << 20  # bytes
_LATEST = 1e11  # seconds since the epoch; what is beyond, or no number, is no time
_FRAME = rb"([0-7] -?\d{1,17} \d{1,10} [^\xfe\xfd]*)\xfe([^\xfd]*)\xfd(.*)"
_LONGEST = MAX_NAME + MAX_TEXT + 40  # bytes of a frame


class Origin(NamedTuple):
    """Where a record comes from, and how much it matters.

    ``severity`` is that of syslog (RFC 5424, 6.2.1): 0 is an emergency, 3 an error, 4 a warning, 6
    information and 7 debugging. ``time`` is in seconds since the epoch, ``pid`` the process, and ``name`` the
    logger's.
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
        """Where it comes from."""
        severity, moment, pid, name = self.head.split(b" ", 3)
        return Origin(int(severity), int(moment) / 1e6, int(pid), name.decode(errors="replace"))


class Damage(NamedTuple):
    """Bytes of a stream that are no record, or not all of one: a worker was killed while it wrote."""

    data: bytes


def encode_origin(severity: int, time: float, pid: int, name: str) -> bytes:
    """Write an origin for a `Record`; a time that is none becomes 0, and a name that is too long is cut."""
    moment = time * 1e6 if -_LATEST < time < _LATEST else 0.0
    return b"%d %d %d %b" % (severity, moment, pid, _encode_name(name))


@lru_cache(maxsize=64)
def _encode_name(name: str) -> bytes:
    text = str(name)  # it is None in a record that was made by hand
    return text.encode(errors="backslashreplace")[:MAX_NAME]


def encode_record(record: Record) -> bytes:
    """Put a record into a frame. A text that is too long loses its middle."""
    head, text = record
    return b"\xff%b\xfe%b\xfd" % (head, text if len(text) <= MAX_TEXT else _shortened(text))


def _shortened(text: bytes) -> bytes:
    half = (MAX_TEXT - 64) // 2  # 64 make room for the line that tells it
    begin, end = (part.decode(errors="ignore").encode() for part in (text[:half], text[-half:]))
    left_out = len(text) - len(begin) - len(end)
    return b"%b\n... %d bytes are left out here ...\n%b" % (begin, left_out, end)


class RecordReader:
    """Takes the bytes of one stream as they come and gives its records. It holds one record at most.

    ``rest`` is the beginning of that record: another reader can be made from it, to go on here.
    """

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest
        self._frame = re.compile(_FRAME, re.DOTALL)

    def feed(self, data: bytes) -> list[Record | Damage]:
        """Return what is complete with these bytes, in order."""
        before, *frames = (self.rest + data).split(b"\xff")
        self.rest = b"\xff" + frames.pop() if frames and _may_go_on(frames[-1]) else b""
        found: list[Record | Damage] = []
        damaged = [before]  # together: nonsense may have a beginning of a frame in each byte
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
        """Return what is left at the end of the stream: nothing, or the beginning of a record."""
        rest, self.rest = self.rest, b""
        return [Damage(rest)] if rest else []


def _damage(pieces: list[bytes]) -> list[Record | Damage]:
    data = b"".join(pieces)
    return [Damage(data)] if data else []


def _may_go_on(frame: bytes) -> bool:
    """Tell whether more bytes could make a record of these."""
    return b"\xfd" not in frame and len(frame) <= _LONGEST
