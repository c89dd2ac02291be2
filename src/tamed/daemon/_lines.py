"""Lines out of what a worker prints: C libraries, ``print`` and a dying interpreter do.

It comes in pieces, without frames. The lines of one worker that come shortly after each other belong
together, a traceback or the stacks that faulthandler dumps, and it must not be torn apart by other workers'
lines; so they are held back until the worker pauses. Whoever writes them to the log adds the worker's pid.
"""

__all__ = ["LineReader"]

_MORE = b" [...]"  # ends a piece of a line that goes on in the next one
_LINE_LIMIT = 16 * 1024  # bytes
_HELD_LIMIT = 256 * 1024  # bytes
_PAUSE = 0.05  # seconds
_PATIENCE = 0.5  # seconds


class LineReader:
    """Takes the bytes of one stream as they come, with the time on a monotonic clock, and gives its lines.

    A line is without its newline, and cut into pieces where it is longer than 16 KiB; all but the last end
    in ``[...]``. What it holds is bounded, by 256 KiB and the piece that was fed last. ``rest`` is the line
    that has not ended: another reader can be made from it, to go on here.
    """

    def __init__(self, rest: bytes = b"") -> None:
        self.rest = rest
        self._lines: list[bytes] = []
        self._held = 0
        self._begun = self._latest = 0.0

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes that came at this time."""
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
        """The time at which :meth:`take` has something to give; None if it has nothing at all."""
        if not self._lines:
            return None
        if self._held > _HELD_LIMIT:
            return self._begun
        return min(self._latest + _PAUSE, self._begun + _PATIENCE)

    def take(self, now: float) -> list[bytes]:
        """Return the lines that are due, to be written as one record; a line without its end waits for it."""
        due = self.due
        if due is None or now < due:
            return []
        self._begun = now
        return self._release()

    def take_all(self) -> list[bytes]:
        """Return all lines that have ended, due or not."""
        return self._release()

    def finish(self) -> list[bytes]:
        """Return all that is left at the end of the stream, the line that never ended too."""
        if self.rest:
            self._hold(_pieces(self.rest))
            self.rest = b""
        return self._release()

    def _hold(self, lines: list[bytes]) -> None:
        self._lines += lines
        self._held += sum(map(len, lines))

    def _release(self) -> list[bytes]:
        lines, self._lines, self._held = self._lines, [], 0
        return lines


def _pieces(line: bytes) -> list[bytes]:
    """Cut a line where it is too long, but not within a character of UTF-8."""
    pieces = []
    while len(line) > _LINE_LIMIT:
        end = _LINE_LIMIT
        while end > _LINE_LIMIT - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(line[:end] + _MORE)
        line = line[end:]
    return [*pieces, line]
