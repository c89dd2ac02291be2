"""The data connection of FTP, for files and listings: the client connects to a port of the server."""

import asyncio
import errno
import os
import random
import re
import socket
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

import aioftp

from tamed._os.descriptors import reset_at_close

__all__ = ["DataPort", "DataStream", "PortRange"]

_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

_MOST_OPENING: Final = 4
"""Connections to a port that have no stream yet; with one more, the oldest is closed."""

_HANDSHAKE: Final = 10.0
"""Seconds that a client has for the TLS handshake of a data connection."""

_PAUSE: Final = 0.1
"""Seconds after a failure to accept."""


@dataclass(frozen=True)
class PortRange:
    """Ports from ``first`` to ``last``, both included, written ``50000-50100``; 0 means any free port."""

    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        any_port = self.first == self.last == 0
        if not any_port and not 1 <= self.first <= self.last <= 65535:
            raise ValueError(f"expected ports from 1 to 65535, the lower one first, got {self}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``FIRST-LAST`` or one port; raises ValueError for everything else."""
        found = _RANGE.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"expected FIRST-LAST, such as 50000-50100, got {text!r}")
        return cls(int(found[1]), int(found[2] or found[1]))

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def listen(self, host: str) -> socket.socket:
        """Return a socket that listens on a free port of the range, for a few connections.

        The first port to try is random, because several processes may share the range. Raises OSError, with
        EADDRINUSE if no port is free.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        count = self.last - self.first + 1
        start = random.randrange(count)  # noqa: S311 - not a secret: only the client is accepted
        for step in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((host, self.first + (start + step) % count))
                sock.listen(4)
            except OSError as error:
                sock.close()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                sock.setblocking(False)
                return sock
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


class DataStream(aioftp.ThrottleStreamIO):
    """A data connection. Its end means that a file is complete, so after a failure it is reset."""

    count = 0
    """The bytes that were transferred."""

    async def read(self, count: int = -1) -> bytes:
        """Read up to this many bytes; none at the end."""
        data = await super().read(count)
        self.count += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Write, and wait until there is room for more."""
        await super().write(data)
        self.count += len(data)

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.reset()
            return
        self.close()
        async with asyncio.timeout(self.write_timeout):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Reset the connection, if it is open, so that the client does not take it for a complete file."""
        sock = self.writer.get_extra_info("socket")
        if sock.fileno() >= 0:
            # uvloop's socket object does not allow it.
            with socket.socket(fileno=os.dup(sock.fileno())) as same:
                reset_at_close(same)
        self.writer.transport.abort()


class DataPort:
    """A port on which one client is expected, once.

    Connections from other addresses are reset: otherwise a faster client could get this client's file.
    That happens before TLS, and a connection that does not finish its handshake makes room for another.
    """

    def __init__(self, ports: PortRange, host: str, timeout: float) -> None:
        self._sock = ports.listen(host)
        self._timeout = timeout
        self._is_open = True
        self._accepting: asyncio.Task[None] | None = None
        # Connections that have no stream yet; with TLS the client decides when they have.
        self._opening: dict[asyncio.Task[None], None] = {}
        self.number: int = self._sock.getsockname()[1]

    async def open(self, connection: aioftp.Connection) -> None:
        """Accept; the result is the session's ``data_connection``, until that is used, and its ``stream``."""
        self._accepting = asyncio.get_running_loop().create_task(self._accept(connection))
        self._accepting.add_done_callback(lambda _: self._sock.close())

    def close(self) -> None:
        """Close the port, but not a connection that was made to it."""
        self._is_open = False
        if self._accepting is None:
            self._sock.close()
            return
        for task in (self._accepting, *self._opening):
            task.cancel()

    async def _accept(self, connection: aioftp.Connection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._sock)
            except OSError:  # no descriptor is free, or the client has disconnected
                await asyncio.sleep(_PAUSE)
                continue
            if address[0] != connection.client_host:
                reset_at_close(sock)
                sock.close()
                continue
            if len(self._opening) >= _MOST_OPENING:
                next(iter(self._opening)).cancel()
            task = loop.create_task(self._take(sock, connection))
            self._opening[task] = None
            task.add_done_callback(partial(self._taken, sock))

    async def _take(self, sock: socket.socket, connection: aioftp.Connection) -> None:
        """Open a stream on a connection; the first stream is the client's, and closes the port."""
        loop = asyncio.get_running_loop()
        control = connection.command_connection
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        context = control.writer.get_extra_info("sslcontext")
        seconds = None if context is None else min(self._timeout, _HANDSHAKE)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=context, ssl_handshake_timeout=seconds
            )
        except OSError:
            sock.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        if not self._is_open:
            writer.transport.abort()
            return
        self._forget(asyncio.current_task())
        self.close()
        stream = DataStream(reader, writer, throttles=control.throttles, timeout=self._timeout)
        connection.data_connection = connection.stream = stream

    def _taken(self, sock: socket.socket, task: "asyncio.Task[None]") -> None:
        self._forget(task)
        if task.cancelled():  # a task cancelled before it began cannot do this itself
            sock.close()

    def _forget(self, task: "asyncio.Task[None] | None") -> None:
        if task is not None:
            self._opening.pop(task, None)
