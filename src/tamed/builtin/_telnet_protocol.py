"""The protocol of a telnet session, by telnetlib3, which removes the commands from the input.

The client stays in its own line mode, in which it echoes and edits. The only option that is ever accepted is
ECHO, by which a client is asked not to show a password. All others are refused, above all compression, with
which little input can become much.

A web page can make a browser send a request to any port of the browser's machine, with Python in it. So a
connection whose first line is that of a request, or could be, is closed.

Everything that Tamed uses of telnetlib3 is here. Its documentation promises nothing about the classes that
`_Commands` and `_Reader` replace, hence the upper bound in pyproject.toml and a test that names every part.
"""

import asyncio
import re
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import telnetlib3

from tamed.builtin._prompt.terminal import Keyboard, Lines
from tamed.log.logger import own_logger
from tamed.net.endpoint import address_text

__all__ = ["TelnetProtocol"]

log = own_logger("telnet")

_LAST: Final = 5.0
"""Seconds to run the last input when the client has ended its side, and to send the last output."""

_MOST_COMMANDS: Final = 65536
"""Bytes of telnet commands without any input between them."""

_ALL: Final = {bytes([code]) for code in range(256)}

_REQUEST: Final = re.compile(r"HTTP/\d(\.\d)?\s*$")

Begin = Callable[["TelnetProtocol"], "asyncio.Task[None]"]
"""Begins the session of a connection; returns its task."""


class TelnetProtocol(telnetlib3.BaseServer):
    """A connection. ``begin`` makes its session; each ends with the other.

    ``peer`` is the client's address with its port, and ``host`` the address alone. Lines of more than
    ``longest_line`` bytes are dropped.
    """

    keyboard: Keyboard
    reader: Any  # the base class has unions here, with types that it never creates for us
    writer: Any
    peer = host = "unix"

    def __init__(self, begin: Begin, longest_line: int) -> None:
        super().__init__(
            encoding=False, reader_factory=cast(type, self._make_reader), writer_factory=_Commands
        )
        self._begin = begin
        self._longest_line = longest_line
        self._session: asyncio.Task[None] | None = None
        self._has_begun = False  # the first line has come
        self._command_bytes = 0  # since the last input

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the session."""
        self._connection = cast(asyncio.Transport, transport)
        self.keyboard = Keyboard(self._read)
        if peer := transport.get_extra_info("peername"):
            self.peer, self.host = address_text(peer), peer[0]
        _take_urgent_data_in_line(self._connection)
        super().connection_made(transport)
        for command in (telnetlib3.IP, telnetlib3.BRK):
            self.writer.set_iac_callback(command, self._interrupt)
        self._session = self._begin(self)
        self._session.add_done_callback(self.close)

    def data_received(self, data: bytes) -> None:
        """Handle input, and disconnect a client that sends only commands.

        telnetlib3 keeps a subnegotiation until its end, up to a megabyte in eight times as much memory.
        """
        with self.writer.answers_together():
            super().data_received(data)
        self._command_bytes = 0 if self.reader.has_taken() else self._command_bytes + len(data)
        if self._command_bytes > _MOST_COMMANDS:
            log.warning("%s sends only telnet commands: disconnected", self.peer)
            self.abort()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Run the last input, but not for long: the client may have disconnected."""
        self.reader.feed_eof()
        asyncio.get_running_loop().call_later(_LAST, self.hang_up)
        return self._connection.get_extra_info("ssl_object") is None

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.hang_up()

    def connection_draining(self) -> None:
        """End the session: the server stops."""
        self.write("\nthe service is stopping: goodbye\n")
        self.hang_up()

    def hang_up(self) -> None:
        """End the session, and so the connection."""
        if self._session is not None:
            self._session.cancel()

    def close(self, *_: object) -> None:
        """Close the connection when everything is sent, or a few seconds later."""
        self._connection.close()
        asyncio.get_running_loop().call_later(_LAST, self._connection.abort)

    def abort(self) -> None:
        """End the connection at once, and the session with it."""
        self._connection.abort()

    def write(self, text: str) -> None:
        self.writer.write(text.replace("\n", "\r\n").encode(errors="replace"))

    async def drain(self) -> None:
        await self.writer.drain()

    def show_input(self, shown: bool) -> None:
        """Make the client show the input, or not: WILL ECHO means that it should not (RFC 857)."""
        self.writer.iac(telnetlib3.WONT if shown else telnetlib3.WILL, telnetlib3.ECHO)

    def begin_negotiation(self) -> None:
        """Negotiate nothing."""

    def _interrupt(self, _: bytes) -> None:
        self.keyboard.interrupt()

    def _read(self, on: bool) -> None:
        if on:
            self._connection.resume_reading()
        else:
            self._connection.pause_reading()

    def _make_reader(self, **_: Any) -> "_Reader":
        return _Reader(Lines(self._line, self._too_long, self._longest_line), self.keyboard)

    def _line(self, text: str) -> None:
        if not self._has_begun and _REQUEST.search(text):
            self._refuse_request()
        self._has_begun = True
        self.keyboard.line(text)

    def _too_long(self) -> None:
        if not self._has_begun:
            self._refuse_request()
        self._has_begun = True
        self.keyboard.too_long()

    def _refuse_request(self) -> None:
        log.warning(
            "%s seems to be a browser, which a web page can make send Python code: disconnected", self.peer
        )
        self.hang_up()


class _Commands(telnetlib3.TelnetWriter):
    """Answers the commands of the protocol."""

    # A character of the input is never a command.
    slc_simulated = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.compression = False
        self.always_wont = _ALL - {telnetlib3.ECHO, telnetlib3.TM}
        self.always_dont = _ALL
        self._answers: bytearray | None = None

    @contextmanager
    def answers_together(self) -> Iterator[None]:
        """Send the answers to the commands of one piece of input in one write.

        From Python 3.12, a write of asyncio takes longer the more writes wait for the client: 64 KB of
        commands would block the event loop for seconds.
        """
        self._answers = bytearray()
        try:
            yield
        finally:
            answers, self._answers = bytes(self._answers), None
            if answers:
                super().send_iac(answers)

    def send_iac(self, buf: bytes) -> None:
        """Send a command, or keep it until all of the input is read."""
        if self._answers is None:
            super().send_iac(buf)
        else:
            self._answers += buf

    def handle_do(self, opt: bytes) -> bool:
        """Accept ECHO only as the answer to ours."""
        if opt == telnetlib3.ECHO and not self.pending_option.enabled(telnetlib3.WILL + opt):
            self.iac(telnetlib3.WONT, opt)
            return False
        return super().handle_do(opt)

    def handle_subnegotiation(self, buf: deque[bytes]) -> None:
        """Ignore it: no option with subnegotiations is accepted."""


class _Reader:
    """Replaces telnetlib3's input stream, and splits the input into lines at once."""

    def __init__(self, lines: Lines, keyboard: Keyboard) -> None:
        self._lines = lines
        self._keyboard = keyboard
        self._error: Exception | None = None
        self._has_taken = False

    def feed_data(self, data: bytes) -> None:
        self._has_taken = True
        self._lines.feed(data)

    def has_taken(self) -> bool:
        """Return whether there was input since the last call."""
        taken, self._has_taken = self._has_taken, False
        return taken

    def feed_eof(self) -> None:
        self._lines.finish()
        self._keyboard.end()

    def set_exception(self, error: Exception) -> None:
        self._error = error

    def exception(self) -> Exception | None:
        return self._error


def _take_urgent_data_in_line(transport: asyncio.Transport) -> None:
    """Receive the urgent byte, the end of a Synch (RFC 854), in its place in the stream."""
    sock = transport.get_extra_info("socket")
    with suppress(OSError):  # a unix socket has none
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
