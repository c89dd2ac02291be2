"""What protocols do with a transport: pausing its reading, and noticing whether the client reads."""

import asyncio
import socket
import struct
from typing import Final

__all__ = ["Progress", "end_writing", "set_reading"]

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
