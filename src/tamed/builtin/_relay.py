"""A relay: two connections of which each is sent what comes in by the other."""

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from tamed.builtin._idle import IdleWatch
from tamed.errors import reason

__all__ = ["Patience", "Relay", "Stream"]

_CHUNK: Final = 64 * 1024
"""The most bytes that are read at a time, and that wait to be sent before no more are read."""


class Stream(NamedTuple):
    """The two ends of one connection that are ours."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds a relay waits: ``idle`` for a byte in either direction while both are open.

    ``half_closed`` is the same when one side has ended its own direction.
    """

    idle: float
    half_closed: float


class Relay:
    """Copies between a client and a target until both have ended; ``sent`` and ``received`` are bytes.

    ``sent`` is what the target got. When one side ends its direction, the other is told and may go on
    sending. TLS has no such thing (not in asyncio): the end of a TLS connection is that of both directions.
    So when a target has said all, a client that speaks TLS is closed; and a target that does is told of the
    client's end only when it has ended too, for its answer may be still to come.

    A side that takes nothing makes the other wait, with at most 64 KiB for it in the relay, beside what the
    kernel and the readers hold. When one side is reset, or nothing moves for as long as the `Patience` says,
    both are aborted.
    """

    def __init__(self, client: Stream, target: Stream, patience: Patience) -> None:
        self.sent = 0
        self.received = 0
        self._client = client
        self._target = target
        self._patience = patience
        self._watch = IdleWatch(patience.idle)

    async def run(self) -> str:
        """Copy to the end; return how it ended, in a few words.

        The target's connection is closed then, the client's too unless it ended well. When this is
        cancelled, both are aborted.
        """
        ending = "aborted"
        try:
            async with self._watch, asyncio.TaskGroup() as directions:
                directions.create_task(self._send())
                directions.create_task(self._receive())
            ending = ""
        except* TimeoutError:
            ending = f"nothing moved for {self._watch.seconds:g} s"
        except* OSError as errors:
            ending = reason(errors)
        finally:
            self._close(cleanly=not ending)
        return ending or "closed"

    def _close(self, *, cleanly: bool) -> None:
        if cleanly:
            self._target.writer.close()  # there is nothing left to be sent
        else:
            self._target.writer.transport.abort()
            self._client.writer.transport.abort()

    async def _send(self) -> None:
        await self._copy(self._client.reader, self._target.writer, self._count_sent)
        _end_direction(self._target.writer)

    async def _receive(self) -> None:
        await self._copy(self._target.reader, self._client.writer, self._count_received)
        if not _end_direction(self._client.writer):
            self._client.writer.close()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
    ) -> None:
        """Copy to the end of one direction, and until all of it is sent."""
        _open_transport(writer).set_write_buffer_limits(high=_CHUNK)
        while chunk := await reader.read(_CHUNK):
            self._watch.moved()
            _open_transport(writer).write(chunk)
            await writer.drain()
            self._watch.moved()
            count(len(chunk))
        self._watch.now_within(self._patience.half_closed)
        if not writer.transport.is_closing():
            # Not 0: a TLS transport that has nothing to send would have reached that, and wait for ever.
            writer.transport.set_write_buffer_limits(high=1, low=0)
            await writer.drain()

    def _count_sent(self, size: int) -> None:
        self.sent += size

    def _count_received(self, size: int) -> None:
        self.received += size


def _end_direction(writer: asyncio.StreamWriter) -> bool:
    """End what is sent, and return whether that is possible without ending what is received."""
    if writer.transport.is_closing():
        return True
    if not writer.can_write_eof():
        return False
    writer.write_eof()
    return True


def _open_transport(writer: asyncio.StreamWriter) -> asyncio.WriteTransport:
    """Return the transport, if it is open: a closed one of uvloop's raises RuntimeError at all one does."""
    if writer.transport.is_closing():
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    return writer.transport
