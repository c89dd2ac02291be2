"""Writing the log to a descriptor that somebody reads: standard error, a terminal or a pipe as a rule."""

import os
import select
from collections.abc import Callable

__all__ = ["StreamWriter"]

_CHUNK = (
    4096  # bytes for which a pipe has room when poll(2) says that it can be written to: PIPE_BUF, pipe(7)
)
_PATIENCE = 1.0  # seconds


class StreamWriter:
    """Writes lines to a descriptor, and waits for whoever reads them, but not for long.

    The descriptor is not made non-blocking: that is a property of the terminal or pipe itself, which others
    use too. A reader who takes nothing for a second loses what comes from then on, until it reads again; then
    it is told how much that was, in a line that ``note`` makes. One that is gone for good is no reason to
    stop.
    """

    def __init__(self, descriptor: int, note: Callable[[str], bytes], patience: float = _PATIENCE) -> None:
        self._descriptor = descriptor
        self._note = note
        self._patience = patience
        self._is_stalled = False
        self._rest = b""  # of a line that was not taken as a whole
        self._lost = 0  # lines
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, lines: list[bytes]) -> None:
        """Write whole lines, or count them as lost."""
        self.tend()
        data = b"".join(lines)
        if not self._lost and not self._rest:
            data = data[self._write(data) :]
            self._rest, data = _first_line(data)
        self._lost += data.count(b"\n")

    def tend(self) -> None:
        """Finish what was begun, and say what was lost, if somebody reads again."""
        if self._rest:
            self._rest = self._rest[self._write(self._rest) :]
        if self._lost and not self._rest:
            self._rest = self._note(f"{self._lost} lines were lost: nobody read them")
            self._lost = 0
            self._rest = self._rest[self._write(self._rest) :]

    def _write(self, data: bytes) -> int:
        """Write as much as is taken; return how much that was."""
        written = 0
        while written < len(data) and self._has_room():
            try:
                written += os.write(self._descriptor, data[written : written + _CHUNK])
            except BlockingIOError:
                continue
            except OSError:
                return len(data)  # there is no reader any more
        return written

    def _has_room(self) -> bool:
        room = bool(self._poll.poll(0 if self._is_stalled else self._patience * 1000))
        self._is_stalled = not room
        return room


def _first_line(data: bytes) -> tuple[bytes, bytes]:
    """Split off what is left of the line that was begun, so that it is not torn."""
    line, newline, others = data.partition(b"\n")
    return line + newline, others
