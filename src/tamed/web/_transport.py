"""What each protocol does with its transport: pausing what it reads, and watching what it has yet to send."""

import asyncio

__all__ = ["Unsent", "set_reading"]


def set_reading(transport: asyncio.Transport, *, paused: bool) -> None:
    """Pause or resume reading if that is a change: otherwise, and after a close, uvloop would raise."""
    if transport.is_closing() or transport.is_reading() != paused:
        return
    if paused:
        transport.pause_reading()
    else:
        transport.resume_reading()


class Unsent:
    """The data that a transport still has to send: a client that reads slowly has not stalled."""

    __slots__ = ("_size", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._size = transport.get_write_buffer_size()

    def has_shrunk(self) -> bool:
        """Return whether the client has read some of it since the last call."""
        before, self._size = self._size, self._transport.get_write_buffer_size()
        return self._size < before

    def end(self) -> None:
        """Send the rest and the end; writing is paused, for the protocol, until all of it is sent."""
        transport = self._transport
        if transport.is_closing():
            return
        transport.set_write_buffer_limits(0)
        if transport.can_write_eof():
            transport.write_eof()
