"""How a connection is closed once its answer is complete, so that the peer gets all of it.

Two things make a plain ``close()`` lose the end of an answer that the peer is still reading. The kernel
sends a reset, and drops what it has not sent, if there is input that nobody read: so the input is read
and thrown away. And a TLS transport gives its peer half a minute for all that is left
(``ssl_shutdown_timeout``), however slowly it reads: so what is left is sent first.

Input that comes after the close causes a reset all the same. Only waiting for the peer to close could
prevent that.
"""

import asyncio
import fcntl
import os
import termios
from array import array
from typing import Final

from tamed.net._connection import Connection

__all__ = ["close_when_sent", "discard_input"]

_MUCH: Final = 64 * 1024
"""More than this will not be sent by the loop's next round. It is asyncio's own high-water mark."""

_CHUNK: Final = 64 * 1024
_NOTHING: Final = array("i", [0])


def discard_input(fd: int) -> None:
    """Throw away what the peer of a socket has sent so far; it does not matter if the socket blocks."""
    # Every connection comes by here, hence no `suppress`. To ask first is four times cheaper than the
    # exception by which recv() says that there is nothing; to ask for bytes instead of into an array would
    # raise one behind the scenes.
    waiting = _NOTHING[:]
    try:
        fcntl.ioctl(fd, termios.FIONREAD, waiting)
        if waiting[0]:
            _read(fd, waiting[0])
    except OSError:  # the peer has reset the connection
        pass


def _read(fd: int, size: int) -> None:
    while size > 0 and (read := len(os.read(fd, min(size, _CHUNK)))):
        size -= read


def close_when_sent(
    transport: asyncio.Transport, connection: Connection, writer: asyncio.StreamWriter | None = None
) -> None:
    """Close a transport on this connection whose protocol has written all it will, when all is sent.

    A ``writer`` on it is kept until then: from Python 3.13 on, one that nobody has closes its transport.
    """
    if transport.is_closing():
        return
    if transport.get_write_buffer_size() > _MUCH:
        transport.set_protocol(_Flushing(transport, writer, tls=connection.tls))
        transport.set_write_buffer_limits(high=1, low=0)
        transport.resume_reading()
        return
    if not connection.tls:
        discard_input(connection.fileno())
    transport.close()


class _Flushing(asyncio.Protocol):
    """Takes over from a protocol that has written all: discards input, and closes when it is sent."""

    def __init__(
        self, transport: asyncio.Transport, writer: asyncio.StreamWriter | None, *, tls: bool
    ) -> None:
        self._transport = transport
        self._writer = writer
        self._before = transport.get_protocol()
        self._tls = tls

    def eof_received(self) -> bool:
        # A client may end its own side and still read; in TLS there is no such thing.
        return not self._tls

    def resume_writing(self) -> None:
        # In the next round: a transport that is about to look at its empty buffer must not find itself
        # closed.
        asyncio.get_running_loop().call_soon(self._transport.close)

    def connection_lost(self, error: Exception | None) -> None:
        self._before.connection_lost(error)
