r"""How a worker's log records reach the supervisor: one stream a worker, records framed in it.

A record may have many lines, a traceback above all, and must come out whole although several workers write.
So every worker has a stream of its own, a pipe or a stream socket, on which only it writes, and each record
is framed::

    \\xff SEVERITY " " TIME " " NAME-LENGTH " " TEXT-LENGTH "\\n" NAME TEXT

The header is in ASCII, and name and text are in UTF-8, in which the byte ``\\xff`` does not occur. So
``\\xff`` is where a record begins, always: whatever happened to a stream, the reader is in step again at
the next record. That matters when a worker is killed in the middle of a write, or a forked grandchild
writes in between.

What is printed to standard error, by C libraries and a dying interpreter, goes another way: see ``_lines``.

Rejected: datagrams or packets, which keep records apart by themselves. They are limited to the size of a
socket buffer, which a traceback can exceed, cost a buffer of their own for each short line, and macOS has
no packets.
"""

import re
from typing import NamedTuple

__all__ = ["Damage", "Record", "RecordReader", "encode_record"]

MAX_NAME = 255  # bytes
MAX_TEXT = 1 << 20  # bytes
_LATEST = 1e11  # seconds since the epoch; what is beyond, or no number, is no time
_HEADER = re.compile(rb"\xff([0-7]) (-?\d{1,11}\.\d{6}) (\d{1,3}) (\d{1,7})\n")
_MAX_HEADER = 40  # bytes; the longest that matches is shorter


class Record(NamedTuple):
    """One log record of a worker.

    ``severity`` is that of syslog (RFC 5424, 6.2.1): 0 is an emergency, 3 an error, 4 a warning, 6
    information and 7 debugging. ``time`` is in seconds since the epoch, ``name`` is the logger's and
    ``text`` has one or more lines, without a newline at the end.
    """

    severity: int
    time: float
    name: str
    text: str


class Damage(NamedTuple):
    """Bytes of a stream that are no record, or not all of one: a worker was killed while it wrote."""

    data: bytes


def encode_record(record: Record) -> bytes:
    """Put a record into a frame. What UTF-8 cannot say is escaped, and what is too long loses its middle."""
    name = record.name.encode(errors="backslashreplace")[:MAX_NAME]
    text = _shortened(record.text.encode(errors="backslashreplace"))
    moment = record.time if abs(record.time) < _LATEST else 0.0
    return b"\xff%d %.6f %d %d\n%b%b" % (record.severity, moment, len(name), len(text), name, text)


def _shortened(text: bytes) -> bytes:
    left_out = len(text) - MAX_TEXT
    if left_out <= 0:
        return text
    note = b"\n... %d bytes are left out here ...\n" % (left_out + 64)  # 64 make room for this line
    half = (MAX_TEXT - 64) // 2
    return text[:half] + note + text[-half:]


class RecordReader:
    """Takes the bytes of one stream as they come and gives its records. It holds one record at most.

    ``rest`` is the beginning of that record: another reader can be made from it, to go on here.
    """

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest

    def feed(self, data: bytes) -> list[Record | Damage]:
        """Return what is complete with these bytes, in order."""
        data = self.rest + data
        found: list[Record | Damage] = []
        position = 0
        while position < len(data) and (one := _read(data, position)) is not None:
            what, position = one
            found.append(what)
        self.rest = data[position:]
        return found

    def finish(self) -> list[Record | Damage]:
        """Return what is left at the end of the stream: nothing, or the beginning of a record."""
        rest, self.rest = self.rest, b""
        return [Damage(rest)] if rest else []


def _read(data: bytes, position: int) -> tuple[Record | Damage, int] | None:
    """Read what begins at a position, and return it and where it ends; None if more of it is to come."""
    header = _HEADER.match(data, position)
    following = data.find(b"\xff", position + 1)
    if header is not None and int(header[3]) <= MAX_NAME and int(header[4]) <= MAX_TEXT:
        middle = header.end() + int(header[3])
        end = middle + int(header[4])
        if following < 0 or following >= end:
            if len(data) < end:
                return None
            return _record(header, data[header.end() : middle], data[middle:end]), end
    elif following < 0 and _may_be_header(data[position : position + _MAX_HEADER]):
        return None
    end = following if following >= 0 else len(data)
    return Damage(data[position:end]), end


def _may_be_header(begin: bytes) -> bool:
    """Tell whether more bytes could make a header of these."""
    return begin[:1] == b"\xff" and b"\n" not in begin and len(begin) < _MAX_HEADER


def _record(header: re.Match[bytes], name: bytes, text: bytes) -> Record:
    return Record(
        int(header[1]), float(header[2]), name.decode(errors="replace"), text.decode(errors="replace")
    )
