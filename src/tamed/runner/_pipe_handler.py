"""A worker's way to the log: records through a pipe to the supervisor.

A record is handed to the kernel by the call that logs it, so it is not lost if the worker is killed a moment
later, and no thread stands between. What the pipe does not take is kept, up to a limit, and sent when there
is room. A worker that logs faster than the supervisor can write is held up a little, so that nothing is lost.
One whose supervisor takes nothing at all is not: then what does not fit is counted, and the count is sent in
its place.
"""

import asyncio
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tamed._fork import hollow, own
from tamed.daemon import Outbox, Record, encode_origin, encode_record
from tamed.runner._layout import Line, bare
from tamed.runner._logging import LayoutHandler

__all__ = ["PipeHandler"]

_LIMIT = 16 * 1024 * 1024  # bytes that wait for the supervisor
_PATIENCE = 0.5  # seconds that a record may wait for room before the supervisor counts as stalled
_LAST_WORDS = 5.0  # seconds that the end of a worker waits for its log


class PipeHandler(LayoutHandler):
    """Sends each record, formatted, to the supervisor through a pipe."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""
        self._outbox = Outbox(self._write, self._note, limit=_LIMIT)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = False
        self._is_stalled = False
        self._is_childs = False
        own(self)

    def disown(self) -> None:
        """Print what is logged, in a forked child: two processes that write to the pipe would tear records.

        What is printed is in the log too. What waits is the parent's to send; see `tamed._fork`.
        """
        hollow([self._descriptor])
        self._is_childs = True
        self._loop, self._waiting = None, False
        self._rest = b""
        self._outbox = Outbox(self._write, self._note, limit=_LIMIT)
        self.takes_origin = False
        self.lay_out_with(_printed)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let the running loop send what the pipe did not take at once. Outside of it, `flush` does."""
        self._loop = asyncio.get_running_loop()
        self._wait_for_room()
        try:
            yield
        finally:
            if self._waiting:
                self._loop.remove_writer(self._descriptor)
            self._loop, self._waiting = None, False

    def take(self, record: Record) -> None:
        """Send a record, or keep it until there is room."""
        if self._is_childs:
            _print(record.text + b"\n")
            return
        is_sent = self._outbox.put(encode_record(record), lines=record.text.count(b"\n") + 1)
        if is_sent and not self._rest:
            return
        if self._outbox.is_crowded and not self._is_stalled:
            self._is_stalled = not self._make_room()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wait_for_room)

    def flush(self) -> None:
        """Send all that waits, for which the end of a process waits a few seconds."""
        deadline = time.monotonic() + _LAST_WORDS
        while not self._send_what_waits() and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._descriptor], [], left)

    def _make_room(self) -> bool:
        """Wait, but not for long, until the supervisor has taken some of what waits; tell whether it has."""
        deadline = time.monotonic() + _PATIENCE
        while self._outbox.is_crowded and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._descriptor], [], left)
            self._send_what_waits()
        return not self._outbox.is_crowded

    def _wait_for_room(self) -> None:
        if self._loop is not None and not self._waiting and not self._send_what_waits():
            self._waiting = True
            self._loop.add_writer(self._descriptor, self._go_on)

    def _go_on(self) -> None:
        if self._send_what_waits() and self._loop is not None:
            self._waiting = False
            self._loop.remove_writer(self._descriptor)

    def _send_what_waits(self) -> bool:
        """Send what can be sent; tell whether that is all."""
        with self._alone():  # other threads log too
            is_done = (not self._rest or self._write(b"")) and self._outbox.flush() and not self._rest
            self._is_stalled = self._is_stalled and not is_done
            return is_done

    def _write(self, frame: bytes) -> bool:
        """Write a frame, after what is left of the one before; tell whether it was taken, if only in part."""
        data = self._rest + frame
        try:
            written = os.write(self._descriptor, data)
        except BlockingIOError:
            return False
        except OSError:  # the supervisor is gone, and the worker is about to notice
            self._rest = b""
            return True
        self._rest = data[written:]
        return True

    def _note(self, text: str) -> bytes:
        line = self.layout(Line(time.time(), "WARNING", "tamed", text, os.getpid()))
        head = encode_origin(4, time.time(), os.getpid(), "tamed")
        return encode_record(Record(head, line.encode(errors="backslashreplace")))


def _printed(line: Line) -> str:
    """Lay out a line that the supervisor gives the time, and the name of the worker."""
    return f"{line.level} {line.logger}[{line.pid}]: {bare(line)}"


def _print(text: bytes) -> None:
    while text:
        try:
            text = text[os.write(2, text) :]
        except OSError:  # nobody reads it
            return
