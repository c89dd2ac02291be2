"""Connecting to a target: first the socket, then, when what comes before it was sent, the stream on it."""

import asyncio
import errno
import os
import socket
import ssl as tls
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tamed.builtin._relay import Stream
from tamed.net.bind_unix import short_path
from tamed.net.endpoint import UnixEndpoint

__all__ = ["Address", "connect", "connect_unix", "look_up", "open_stream", "within"]


class Address(NamedTuple):
    """An address that a name stands for, as ``socket`` wants it."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]

    @property
    def host(self) -> str:
        """The IP address; that of a link-local one with its zone."""
        host: str = self.sockaddr[0]
        return host


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Give what is done inside so many seconds; then raise an OSError, ETIMEDOUT, that says so."""
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
    """Return a non-blocking socket that is connected. Raises OSError, in the words of the system."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, os.strerror(error.errno)) from error  # the loops have other words
        raise
    return sock


def connect_unix(endpoint: UnixEndpoint) -> socket.socket:
    """Return a non-blocking socket that is connected. Does not wait: a full backlog is an OSError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        if endpoint.abstract:
            sock.connect(b"\0" + endpoint.path.removeprefix("@").encode("utf-8", "surrogateescape"))
        else:
            with short_path(Path(endpoint.path)) as name:
                sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock


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
