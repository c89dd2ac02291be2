"""Peers that disconnect at any moment: this is no fault of the application.

Event loops report a closed connection in many ways. asyncio's own loop drops data that is written to it, with
a warning from the sixth time on, or raises AttributeError if there was buffered data when it was closed;
uvloop raises RuntimeError. For the address of such a connection, asyncio's loop returns the old one, and
uvloop raises AttributeError.
"""

import asyncio
import errno
import fcntl
import logging
import os
import termios
from array import array
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from tamed.net._compat import WARNINGS_OF_WRITES, is_error_of_closed_connection, retrieve_close_error
from tamed.net._connection import Connection

__all__ = [
    "StreamProtocol",
    "Writer",
    "close_when_sent",
    "discard_input",
    "filter_disconnects",
    "peer_left",
]


_GONE: Final = frozenset(
    {errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT}
)
"""The errors of an unreachable or disconnected peer, besides those of ConnectionError."""


def peer_left(error: Exception, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Return whether the peer caused a handler's error, and not another connection of the handler."""
    if error is reader.exception():
        return True
    gone = writer.is_closing() or reader.at_eof()
    if isinstance(error, OSError):
        return gone and (isinstance(error, ConnectionError) or error.errno in _GONE)
    return gone and (isinstance(error, asyncio.IncompleteReadError) or is_error_of_closed_connection(error))


def filter_disconnects() -> None:
    """Make the log of asyncio omit disconnected peers, or report them in one line."""
    logging.getLogger("asyncio").addFilter(_filter_record)


def _filter_record(record: logging.LogRecord) -> bool:
    if record.msg in WARNINGS_OF_WRITES:
        return False
    if record.exc_info and is_error_of_closed_connection(record.exc_info[1]):
        what = record.getMessage().partition("\n")[0]
        record.msg, record.args = "%s: its connection was closed already", (what,)
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True


class StreamProtocol(asyncio.StreamReaderProtocol):
    """Feeds a reader. ``is_over`` is whether the peer has ended both sides: in TLS they end together.

    ``connected`` is called with the transport. asyncio would call it with a writer of its own, which closes
    the connection when it is not kept, from Python 3.13 on.
    """

    is_over = False

    def __init__(
        self,
        reader: asyncio.StreamReader,
        connected: Callable[[asyncio.Transport], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(reader, loop=loop)
        self._connected = connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect the reader to the transport."""
        super().connection_made(transport)
        self._connected(cast(asyncio.Transport, transport))

    def eof_received(self) -> bool | None:
        """Record the end of the peer's data; return whether our side stays open."""
        stays_open = super().eof_received()
        self.is_over = not stays_open
        return stays_open

    def connection_lost(self, error: Exception | None) -> None:
        """Record that the connection is closed."""
        super().connection_lost(error)
        retrieve_close_error(self)


class Writer(asyncio.StreamWriter):
    """A writer to a peer that may disconnect at any moment; only `drain` and the reader report that.

    Data that is written after that is dropped. Otherwise uvloop raises RuntimeError, and asyncio's own loop
    logs a warning. ``peername`` is the accepted address, also after the peer has disconnected.
    """

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        reader: asyncio.StreamReader,
        address: Any,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._stream = cast(StreamProtocol, transport.get_protocol())
        super().__init__(transport, self._stream, reader, loop)
        self._address = address

    def is_closing(self) -> bool:
        """Return whether no more data can be sent."""
        return self._stream.is_over or super().is_closing()

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        """Send data, if the peer is connected."""
        if not self.is_closing():
            super().write(data)

    def writelines(self, data: "Iterable[bytes | bytearray | memoryview[Any]]") -> None:
        """Send several pieces of data, if the peer is connected."""
        if not self.is_closing():
            super().writelines(data)

    def write_eof(self) -> None:
        """End our side, if the peer is connected."""
        if not self.is_closing():
            try:
                super().write_eof()
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about the connection, or the default if it is closed."""
        if name == "peername":
            return self._address
        try:
            return super().get_extra_info(name, default)
        except (AttributeError, OSError):  # of uvloop, which reads it from the socket
            return default


_MUCH: Final = 64 * 1024
"""Bytes; more will not be sent in the loop's next iteration. It is asyncio's own high-water mark."""

_CHUNK: Final = 64 * 1024
_NOTHING: Final = array("i", [0])


def discard_input(fd: int) -> None:
    """Discard the data that the peer of a socket has sent so far; the socket may be blocking or not."""
    # This runs for every connection, so there is no `suppress`. FIONREAD is four times cheaper than recv()
    # with its exception if there is no data; an ioctl with bytes instead of an array raises one internally.
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
    """Close a transport whose protocol has written everything, as soon as all of it is sent.

    A ``writer`` on it is kept until then: from Python 3.13 on, a writer without a reference closes its
    transport.
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
    """Replaces a protocol that has written everything: discards input, and closes when all is sent."""

    def __init__(
        self, transport: asyncio.Transport, writer: asyncio.StreamWriter | None, *, tls: bool
    ) -> None:
        self._transport = transport
        self._writer = writer
        self._before = transport.get_protocol()
        self._tls = tls

    def eof_received(self) -> bool:
        # A client may end its own side and still read, but not in TLS.
        return not self._tls

    def resume_writing(self) -> None:
        # In the next iteration: the transport, which is about to check its empty buffer, must not be closed.
        asyncio.get_running_loop().call_soon(self._transport.close)

    def connection_lost(self, error: Exception | None) -> None:
        self._before.connection_lost(error)
