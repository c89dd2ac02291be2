"""Files that the kernel sends to a client (sendfile(2)), without a copy in our memory.

uvloop has no ``loop.sendfile``, and that of asyncio knows no deadline for a client that takes nothing.
"""

import asyncio
import os
from typing import Final

from tamed.web._deadline import MovingDeadline

__all__ = ["send_file"]

_MOST: Final = 2 * 1024 * 1024
"""Bytes that are sent in one call; then others have their turn. nginx has the same (sendfile_max_chunk)."""


async def send_file(transport: asyncio.Transport, descriptor: int, size: int, stall: float) -> int:
    """Send a file on the socket of a transport that has nothing left to write; return how much was sent.

    That is less if the file is shorter than ``size``, or if the transport is closed meanwhile. Raises
    TimeoutError if the client takes nothing for ``stall`` seconds, and OSError if it has left.
    """
    # A descriptor of our own: that of the transport may be another file's as soon as it is closed, and event
    # loops refuse to watch it.
    sock = os.dup(transport.get_extra_info("socket").fileno())
    try:
        sending = _Sending(transport, sock, descriptor, size)
        if not sending.has_ended():
            await sending.until_ended(stall)
        return sending.sent
    finally:
        os.close(sock)


class _Sending:
    """Sends what the socket takes, whenever it takes more.

    That is done in a callback of the event loop: if a task were woken each time, a file of 1 MB would take a
    third longer.
    """

    def __init__(self, transport: asyncio.Transport, sock: int, descriptor: int, size: int) -> None:
        self.sent = 0
        self._transport = transport
        self._sock = sock
        self._descriptor = descriptor
        self._size = size

    def has_ended(self) -> bool:
        """Send a part, unless all is sent; return whether there is nothing more to send."""
        if self.sent >= self._size or self._transport.is_closing():
            return True
        try:
            count = os.sendfile(self._sock, self._descriptor, self.sent, min(self._size - self.sent, _MOST))
        except BlockingIOError:
            return False
        self.sent += count
        return count == 0 or self.sent == self._size

    async def until_ended(self, stall: float) -> None:
        """Send the rest."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def send() -> None:
            before = self.sent
            try:
                is_last = self.has_ended()
            except OSError as error:
                fail(error)
                return
            if is_last and not ended.done():
                ended.set_result(None)
            elif self.sent > before:
                deadline.set(stall)

        def fail(error: OSError) -> None:
            if not ended.done():
                ended.set_exception(error)

        deadline = MovingDeadline(loop, lambda: fail(TimeoutError(f"it took nothing for {stall:g} s")))
        deadline.set(stall)
        loop.add_writer(self._sock, send)
        try:
            await ended
        finally:
            loop.remove_writer(self._sock)
            deadline.close()
