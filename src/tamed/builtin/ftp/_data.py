"""The second connection of FTP, on which files and listings pass: the client makes it to a port of ours."""

import asyncio
import os
import socket
import struct
from contextlib import suppress

import aioftp

from tamed.builtin.ftp._ports import PortRange

__all__ = ["DataPort", "DataStream"]


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
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class DataPort:
    """A port on which one client is expected, once.

    Others who connect are sent away: without that, whoever is quick could take somebody's file.
    """

    def __init__(self, ports: PortRange, host: str, timeout: float) -> None:
        self._sock = ports.listen(host)
        self._timeout = timeout
        self._is_open = True
        self._server: asyncio.Server | None = None
        self.number: int = self._sock.getsockname()[1]

    async def open(self, connection: aioftp.Connection) -> None:
        """Listen; what comes of it is the session's ``data_connection``, until it is used, and ``stream``."""
        control = connection.command_connection

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            address = writer.get_extra_info("peername")
            if not self._is_open or address is None or address[0] != connection.client_host:
                writer.transport.abort()
                return
            self.close()
            stream = DataStream(reader, writer, throttles=control.throttles, timeout=self._timeout)
            connection.data_connection = connection.stream = stream

        self._server = await asyncio.start_server(
            connected, sock=self._sock, ssl=control.writer.get_extra_info("sslcontext")
        )

    def close(self) -> None:
        """Listen no more; a connection that was made goes on."""
        self._is_open = False
        if self._server is not None:
            self._server.close()
        with suppress(OSError):
            self._sock.close()
