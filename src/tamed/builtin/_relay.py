"""The common part of the proxies: connecting to a target, and relaying between it and a client.

`connect` makes the socket, and `open_stream` the stream on it, so that something can be sent in clear in
between. A `Relay` then copies both ways to the end.
"""

import asyncio
import errno
import logging
import os
import socket
import ssl as tls
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, Protocol

from tamed.errors import reason
from tamed.net.bind import Address
from tamed.net.client import connected, connected_unix
from tamed.net.endpoint import UnixEndpoint

__all__ = [
    "IdleTimeout",
    "Relay",
    "Stream",
    "connect",
    "connect_unix",
    "log_end",
    "look_up",
    "open_stream",
    "time_limit",
]

_CHUNK: Final = 64 * 1024
"""Maximum bytes to read at a time; reading pauses while this many wait to be sent."""


class Stream(NamedTuple):
    """Our side of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Relay:
    """Copies between a client and a target until both have ended; ``sent`` and ``received`` are bytes.

    ``sent`` counts the bytes sent to the target. When one side ends its direction, the end is passed on, and
    the other side may continue to send. TLS has no half-close in asyncio: the end of a TLS connection ends
    both directions. So when a target has ended, a client that uses TLS is disconnected; and a target that
    uses TLS learns of the client's end only after its own, because its answer may still be coming.

    If one side reads nothing, the other is paused: the relay buffers at most 64 KiB, besides the buffers of
    the kernel and the readers. When one side is reset, both are aborted; so they are if no data moves for
    ``idle`` seconds while both directions are open, or for ``half_closed`` seconds after that.
    """

    def __init__(self, client: Stream, target: Stream, idle: float, half_closed: float) -> None:
        self.sent = 0
        self.received = 0
        self._client = client
        self._target = target
        self._idle = IdleTimeout(idle)
        self._half_closed = half_closed

    async def run(self) -> str:
        """Copy to the end; return how it ended, in a few words.

        The target's connection is closed then, and the client's too unless all went well. On cancellation
        both are aborted.
        """
        ending = "aborted"
        try:
            async with self._idle, asyncio.TaskGroup() as directions:
                directions.create_task(self._send())
                directions.create_task(self._receive())
            ending = ""
        except* TimeoutError:
            ending = f"nothing moved for {self._idle.seconds:g} s"
        except* OSError as errors:
            ending = reason(errors)
        finally:
            self._close(cleanly=not ending)
        return ending or "closed"

    def _close(self, *, cleanly: bool) -> None:
        if cleanly:
            self._target.writer.close()  # everything was sent
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
            self._idle.reset()
            _open_transport(writer).write(chunk)
            await writer.drain()
            self._idle.reset()
            count(len(chunk))
        self._idle.change(self._half_closed)
        if not writer.transport.is_closing():
            # Not 0: a TLS transport with nothing to send would be at that limit already, and wait forever.
            writer.transport.set_write_buffer_limits(high=1, low=0)
            await writer.drain()

    def _count_sent(self, size: int) -> None:
        self.sent += size

    def _count_received(self, size: int) -> None:
        self.received += size


def _end_direction(writer: asyncio.StreamWriter) -> bool:
    """End the sending direction; return False if that is impossible without ending the receiving one."""
    if writer.transport.is_closing():
        return True
    if not writer.can_write_eof():
        return False
    writer.write_eof()
    return True


def _open_transport(writer: asyncio.StreamWriter) -> asyncio.WriteTransport:
    """Return the transport if it is open: every method of a closed one of uvloop's raises RuntimeError."""
    if writer.transport.is_closing():
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    return writer.transport


class ByteCounts(Protocol):
    """What has been transferred, in bytes."""

    sent: int
    received: int


def log_end(log: logging.Logger, what: str, counts: ByteCounts, begun: float, ending: str) -> None:
    """Log the end of a transfer that began at ``begun``, in seconds of `time.monotonic`."""
    seconds = time.monotonic() - begun
    log.info(
        "%s: %d bytes sent, %d received, %.1f s, %s", what, counts.sent, counts.received, seconds, ending
    )


class IdleTimeout:
    """Raises TimeoutError in the block that it surrounds, ``seconds`` after the last `reset`.

    Setting a timer again for each chunk would cost as much as the chunk. This one compares, when it expires,
    with the time of the last reset.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def reset(self) -> None:
        """Count from now."""
        self._last = self._loop.time()

    def change(self, seconds: float) -> None:
        """Count from now, with another limit."""
        self.seconds = seconds
        self._timer.cancel()
        self.reset()
        self._look()

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = asyncio.timeout(None)
        await self._deadline.__aenter__()
        self.reset()
        self._look()

    async def __aexit__(self, *exception: object) -> None:
        self._timer.cancel()
        await self._deadline.__aexit__(*exception)  # type: ignore[arg-type]

    def _look(self) -> None:
        due = self._last + self.seconds
        self._timer = self._loop.call_at(due, self._look)
        if due <= self._loop.time():
            self._timer.cancel()
            self._deadline.reschedule(due)


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """Limit a block to this many seconds. Raises OSError (ETIMEDOUT), which names them, after that."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s") from error


async def look_up(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[Address]:
    """Return the addresses of a host, in the order in which they should be tried.

    Raises OSError, which may be `socket.gaierror`, if there are none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)
    return [Address(family, sockaddr) for family, _, _, _, sockaddr in found]


async def connect(address: Address) -> socket.socket:
    """Return a non-blocking connected socket. Raises OSError with the system's text."""
    return await connected(socket.socket(address.family, socket.SOCK_STREAM), address.sockaddr)


def connect_unix(endpoint: UnixEndpoint) -> socket.socket:
    """Return a non-blocking connected socket. Does not wait: a full backlog raises OSError."""
    return connected_unix(socket.socket(socket.AF_UNIX), endpoint)


async def open_stream(
    sock: socket.socket, ssl: tls.SSLContext | None = None, server_name: str = "", handshake: float = 30.0
) -> Stream:
    """Open a stream on a connected socket, which belongs to the stream from then on, also if this fails.

    With ``ssl`` it is TLS; ``server_name`` is what the certificate must be for, and ``handshake`` the seconds
    that the handshake may take. Raises OSError.
    """
    settings: dict[str, Any] = {}
    if ssl is not None:
        settings = {"ssl": ssl, "server_hostname": server_name, "ssl_handshake_timeout": handshake}
    return Stream(*await asyncio.open_connection(sock=sock, **settings))
