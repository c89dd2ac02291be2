"""Sending files with sendfile(2), without a copy in this process.

uvloop has no ``loop.sendfile``, and that of asyncio has no timeout for a client that does not read.
"""

import asyncio
import os
from typing import Final

from tamed.web._deadline import MovingDeadline

__all__ = ["send_file", "send_now"]

_MOST: Final = 2 * 1024 * 1024
"""Bytes per call, so that other connections get their turn; the same as nginx's sendfile_max_chunk."""


def send_now(transport: asyncio.Transport, head: bytes, descriptor: int, size: int) -> tuple[int, int]:
    """Send bytes and then a file, as much as the socket accepts at once; return how much of each.

    It is nothing if the transport has something in its buffer. If the transport wrote the head, and this
    waited for its end, a file of 1 MB would take five more system calls. Raises OSError if the client has
    disconnected.
    """
    if transport.get_write_buffer_size():
        return 0, 0
    sock = transport.get_extra_info("socket").fileno()
    try:
        count = os.write(sock, head) if head else 0
    except BlockingIOError:
        return 0, 0
    if count < len(head):
        return count, 0
    sending = _Sending(transport, sock, descriptor, size)
    sending.has_ended()
    return count, sending.sent


async def send_file(transport: asyncio.Transport, descriptor: int, sent: int, size: int, stall: float) -> int:
    """Send a file from byte ``sent`` on, on the socket of a transport with an empty buffer.

    Return the number of bytes sent in all. It is less than ``size`` if the file is shorter, or if the
    transport is closed. Raises TimeoutError if the client reads nothing for ``stall`` seconds, and OSError if
    it disconnects.
    """
    # A duplicate: the number of the transport's descriptor may be reused as soon as it is closed, and event
    # loops refuse to watch it.
    sock = os.dup(transport.get_extra_info("socket").fileno())
    try:
        sending = _Sending(transport, sock, descriptor, size, sent)
        if not sending.has_ended():
            await sending.until_ended(stall)
        return sending.sent
    finally:
        os.close(sock)


class _Sending:
    """Sends as much as the socket accepts, whenever it is writable.

    In a callback of the event loop: waking a task each time would take a third longer for a file of 1 MB.
    """

    def __init__(
        self, transport: asyncio.Transport, sock: int, descriptor: int, size: int, sent: int = 0
    ) -> None:
        self.sent = sent
        self._transport = transport
        self._sock = sock
        self._descriptor = descriptor
        self._size = size

    def has_ended(self) -> bool:
        """Send a part, if anything is left; return whether everything is sent."""
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

        deadline = MovingDeadline(
            loop, lambda: fail(TimeoutError(f"the client read nothing for {stall:g} s"))
        )
        deadline.set(stall)
        loop.add_writer(self._sock, send)
        try:
            await ended
        finally:
            loop.remove_writer(self._sock)
            deadline.close()
