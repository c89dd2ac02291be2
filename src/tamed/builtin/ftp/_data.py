"""The second connection of FTP, on which files and listings pass: the client makes it to a port of ours."""

import asyncio
import os
import socket
import struct
from functools import partial
from typing import Final

import aioftp

from tamed.builtin.ftp._ports import PortRange

__all__ = ["DataPort", "DataStream"]

_MOST_OPENING: Final = 4
"""How many connections to a port may be without a stream; with one more, the oldest is closed."""

_HANDSHAKE: Final = 10.0
"""Seconds that a client has for the TLS handshake of a data connection."""

_PAUSE: Final = 0.1


class DataStream(aioftp.ThrottleStreamIO):
    """A data connection. As its end says that a file is complete, one that failed is reset instead."""

    count = 0
    """The bytes that have passed."""

    async def read(self, count: int = -1) -> bytes:
        """Read up to so many bytes; nothing is the end."""
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
        """Cut the connection so that the client sees it, if it is not closed."""
        sock = self.writer.get_extra_info("socket")
        if sock.fileno() >= 0:
            with socket.socket(fileno=os.dup(sock.fileno())) as same:  # uvloop's own does not allow it
                reset(same)
        self.writer.transport.abort()


class DataPort:
    """A port on which one client is expected, once.

    Others who connect are sent away: without that, whoever is quick could take somebody's file. They are so
    before TLS is spoken, and a client that does not finish its handshake makes room for another.
    """

    def __init__(self, ports: PortRange, host: str, timeout: float) -> None:
        self._sock = ports.listen(host)
        self._timeout = timeout
        self._is_open = True
        self._accepting: asyncio.Task[None] | None = None
        # Connections that have no stream yet; in TLS that takes as long as the client pleases.
        self._opening: dict[asyncio.Task[None], None] = {}
        self.number: int = self._sock.getsockname()[1]

    async def open(self, connection: aioftp.Connection) -> None:
        """Listen; what comes of it is the session's ``data_connection``, until it is used, and ``stream``."""
        self._accepting = asyncio.get_running_loop().create_task(self._accept(connection))
        self._accepting.add_done_callback(lambda _: self._sock.close())

    def close(self) -> None:
        """Listen no more; a connection that was made goes on."""
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
            except OSError:  # no descriptor is left, or the client has gone already
                await asyncio.sleep(_PAUSE)
                continue
            if address[0] != connection.client_host:
                reset(sock)
                sock.close()
                continue
            if len(self._opening) >= _MOST_OPENING:
                next(iter(self._opening)).cancel()
            task = loop.create_task(self._take(sock, connection))
            self._opening[task] = None
            task.add_done_callback(partial(self._taken, sock))

    async def _take(self, sock: socket.socket, connection: aioftp.Connection) -> None:
        """Make a stream of a connection; the first that becomes one is the client's."""
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
        if task.cancelled():  # it may not have begun, so it cannot do this itself
            sock.close()

    def _forget(self, task: "asyncio.Task[None] | None") -> None:
        if task is not None:
            self._opening.pop(task, None)


def reset(sock: socket.socket) -> None:
    """Have the peer see a reset instead of an end, when a socket is closed (SO_LINGER, socket(7))."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
