"""Files that the kernel sends to a client (sendfile(2)), without a copy in our memory.

uvloop has no ``loop.sendfile``, and that of asyncio knows no deadline for a client that takes nothing.
"""

import asyncio
import os
from typing import Final

__all__ = ["send_file"]

_MOST: Final = 512 * 1024
"""Bytes that are sent in one call; then others have their turn."""


async def send_file(transport: asyncio.Transport, descriptor: int, size: int, stall: float) -> int:
    """Send a file on the socket of a transport that has nothing left to write; return how much was sent.

    That is less if the file is shorter than ``size``, or if the transport is closed meanwhile. Raises
    TimeoutError if the client takes nothing for ``stall`` seconds, and OSError if it has left.
    """
    # A descriptor of our own: that of the transport may be another file's as soon as it is closed, and event
    # loops refuse to watch it.
    sock = os.dup(transport.get_extra_info("socket").fileno())
    sent = 0
    try:
        while sent < size and not transport.is_closing():
            try:
                count = os.sendfile(sock, descriptor, sent, min(size - sent, _MOST))
            except BlockingIOError:
                await _until_writable(sock, stall)
                continue
            if count == 0:
                break
            sent += count
            await asyncio.sleep(0)
    finally:
        os.close(sock)
    return sent


async def _until_writable(sock: int, stall: float) -> None:
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(sock, writable.set)
    try:
        async with asyncio.timeout(stall):
            await writable.wait()
    finally:
        loop.remove_writer(sock)
