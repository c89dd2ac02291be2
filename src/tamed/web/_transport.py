"""What the protocols of connections share: pausing a transport, deadlines, and whether the client reads."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

__all__ = ["MovingDeadline", "Progress", "end_writing", "set_reading"]

_ACKNOWLEDGED: Final = struct.Struct("120xQ")
"""The number of bytes that the peer has acknowledged, in the kernel's ``tcp_info`` (tcp(7))."""


def set_reading(transport: asyncio.Transport, *, paused: bool) -> None:
    """Pause or resume reading if that is a change: otherwise, and after a close, uvloop would raise."""
    if transport.is_closing() or transport.is_reading() != paused:
        return
    if paused:
        transport.pause_reading()
    else:
        transport.resume_reading()


def end_writing(transport: asyncio.Transport) -> None:
    """Send the rest and the end; the protocol is paused until all of it is sent."""
    if transport.is_closing():
        return
    transport.set_write_buffer_limits(0)
    if transport.can_write_eof():
        transport.write_eof()


class Progress:
    """Whether a client reads what is sent to it: one that reads slowly has not stalled.

    The kernel counts what has arrived. The size of the transport's buffer would not tell for TLS, which has a
    second one; it is used for unix sockets.
    """

    __slots__ = ("_position", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._position = 0

    def is_made(self) -> bool:
        """Return whether the client has read something since the last call."""
        before, self._position = self._position, self._read()
        return self._position > before

    def _read(self) -> int:
        try:
            info = self._transport.get_extra_info("socket").getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.size
            )
            return int(_ACKNOWLEDGED.unpack(info)[0])
        except (OSError, struct.error):
            return -self._transport.get_write_buffer_size()


class MovingDeadline:
    """Calls ``expired`` when the deadline passes, unless it is moved or cleared before.

    A timer that fires too early checks the deadline, and waits for the rest. Creating and cancelling a timer
    for each wait would be an eighth of the cost of a request.
    """

    __slots__ = ("_at", "_expired", "_loop", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @property
    def is_set(self) -> bool:
        return self._at is not None

    def set(self, seconds: float) -> None:
        """Move the deadline to some seconds from now."""
        self.move_to(self._loop.time() + seconds)

    def move_to(self, at: float) -> None:
        """Move the deadline to a time of the loop."""
        self._at = at
        if self._timer is None or at < self._timer_at:
            self._start(at)

    def clear(self) -> None:
        """Remove the deadline, until the next one is set."""
        self._at = None

    def close(self) -> None:
        """Cancel the timer: ``expired`` is not called any more."""
        self._at = None
        self._expired = _ignore  # breaks a reference cycle: it is usually a method of the owner
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._at is None:
            return
        if self._loop.time() < self._at:
            self._start(self._at)
        else:
            self._at = None
            self._expired()


def _ignore() -> None:
    pass
