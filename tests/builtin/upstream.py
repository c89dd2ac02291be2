"""A poetry server that does what a test of the proxy tells it to."""

import asyncio
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import Self

from tamed.net.stream import StreamServer
from tamed.testing.running import Running, running

__all__ = ["Upstream"]


class Upstream:
    """Counts who comes, and sends ``poem`` when ``release`` is set; if it ``breaks``, a reset follows."""

    def __init__(self, poem: bytes = b"") -> None:
        self.poem = poem
        self.breaks = False
        self.asked = 0
        self.here = asyncio.Event()  # somebody has come
        self.left = asyncio.Event()  # and has left without a poem
        self.release = asyncio.Event()
        self.release.set()
        self._context = running(StreamServer("127.0.0.1:0", self._serve))

    async def __aenter__(self) -> Self:
        self._running: Running[StreamServer] = await self._context.__aenter__()
        self.address = self._running.address()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._context.__aexit__(None, None, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.here.set()
        released = asyncio.create_task(self.release.wait())
        gone = asyncio.create_task(reader.read())
        await asyncio.wait({released, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.left.set()
        elif self.breaks:
            writer.write(self.poem)
            await writer.drain()
            reset(writer)
        else:
            writer.write(self.poem)
        released.cancel()
        gone.cancel()
        await asyncio.wait({released, gone})


def reset(writer: asyncio.StreamWriter) -> None:
    """Have the peer's connection reset, and not ended."""
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
