"""Peers that leave, at any moment: that is their doing, and no fault of the application.

Event loops have many ways to say that there is nobody any more. What is written to a connection that is
closed asyncio's own drops, with a warning from the sixth time on, or fails in it with AttributeError, if more
was to be sent when it was closed; uvloop raises RuntimeError. Asked for the address of such a connection,
asyncio's says what it was, and uvloop fails with AttributeError.
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
    "peer_left",
    "tell_leaving_from_faults",
]


_GONE: Final = frozenset(
    {errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT}
)
"""How a system says that the peer is not there any more, beside what ConnectionError stands for."""


def peer_left(error: Exception, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Tell whether an error of a handler is its peer's doing; its other connections have errors too."""
    if error is reader.exception():
        return True
    gone = writer.is_closing() or reader.at_eof()
    if isinstance(error, OSError):
        return gone and (isinstance(error, ConnectionError) or error.errno in _GONE)
    return gone and (isinstance(error, asyncio.IncompleteReadError) or is_error_of_closed_connection(error))


def tell_leaving_from_faults() -> None:
    """Have the event loop's own log leave out that peers have left, or say it in one line."""
    logging.getLogger("asyncio").addFilter(_tell_apart)


def _tell_apart(record: logging.LogRecord) -> bool:
    if record.msg in WARNINGS_OF_WRITES:
        return False
    if record.exc_info and is_error_of_closed_connection(record.exc_info[1]):
        what = record.getMessage().partition("\n")[0]
        record.msg, record.args = "%s: its connection was closed already", (what,)
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True


class StreamProtocol(asyncio.StreamReaderProtocol):
    """Feeds a reader. ``is_over`` says that the peer has ended both sides: in TLS there is no other end.

    ``connected`` is called with the transport. asyncio would call it with a writer of its own, too, and that
    closes the connection, from Python 3.13 on, when nobody keeps it.
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
        """Let the reader be fed."""
        super().connection_made(transport)
        self._connected(cast(asyncio.Transport, transport))

    def eof_received(self) -> bool | None:
        """Take note of the end; return whether our side stays open."""
        stays_open = super().eof_received()
        self.is_over = not stays_open
        return stays_open

    def connection_lost(self, error: Exception | None) -> None:
        """Take note that there is nothing more to come."""
        super().connection_lost(error)
        retrieve_close_error(self)


class Writer(asyncio.StreamWriter):
    """A writer to a peer that may leave at any moment, which is told by `drain` and the reader alone.

    What is written then is dropped. Otherwise uvloop raises RuntimeError, and asyncio's own loop warns of it.
    ``peername`` is the address that was accepted, also when there is nobody there any more.
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
        """Tell whether nothing can be sent any more."""
        return self._stream.is_over or super().is_closing()

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        """Send some bytes, if there is anybody to take them."""
        if not self.is_closing():
            super().write(data)

    def writelines(self, data: "Iterable[bytes | bytearray | memoryview[Any]]") -> None:
        """Send several pieces, if there is anybody to take them."""
        if not self.is_closing():
            super().writelines(data)

    def write_eof(self) -> None:
        """End our side, if there is another."""
        if not self.is_closing():
            try:
                super().write_eof()
            except OSError as error:
                if error.errno not in _GONE:
                    raise

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a fact about the connection, or the default if it is closed."""
        if name == "peername":
            return self._address
        try:
            return super().get_extra_info(name, default)
        except (AttributeError, OSError):  # of uvloop, which asks the socket
            return default


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
