"""One client of FTP: its commands one after another, and at most one transfer beside them."""

import asyncio
import errno
import re
import time
from collections.abc import Sequence
from typing import Any, Final

import aioftp
from aioftp import Connection

from tamed._os.text import shown
from tamed.builtin._ftp.commands import Commands, close_data
from tamed.builtin._ftp.data import DataStream
from tamed.errors import reason
from tamed.log.logger import own_logger

__all__ = ["Session"]

log = own_logger("ftp")

_ALONE: Final = frozenset({"appe", "epsv", "list", "mlsd", "nlst", "pasv", "retr", "stor"})
"""Commands that are refused during a transfer."""

_KEEPS_OFFSET: Final = frozenset({"rest", "appe", "retr", "stor"})
_CHANGES: Final = frozenset({"dele", "mkd", "rmd", "rnto", "xmkd", "xrmd"})
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ENDINGS: Final = frozenset({"226", "426"})
_TELNET: Final = re.compile(rb"\xff[\xf0-\xfe]")
"""Telnet commands, which a client sends before ABOR (RFC 959, 4.1.3)."""


class Session:
    """Serves one client to its end.

    The next command is read when the last was answered and the answer was sent. During a transfer only
    commands without a transfer are served. Once ``draining`` is set, the session ends as soon as it has no
    transfer.
    """

    def __init__(
        self,
        commands: Commands,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        draining: asyncio.Event,
    ) -> None:
        self._commands = commands
        self._limits = commands.limits
        self._reader = reader
        self._writer = writer
        self._draining = draining
        self._host, self._port = writer.get_extra_info("peername")[:2]
        self._connection = self._new_connection()
        self._workers: set[asyncio.Task[bool]] = self._connection.extra_workers
        self._transfer = ""
        self._endings = 0  # answers that end a transfer
        self._endings_owed = 0
        self._last_code = ""
        self._began = 0.0

    async def run(self) -> None:
        """Serve the client, from the greeting to the end of the session."""
        stopping = asyncio.get_running_loop().create_task(self._draining.wait())
        reading: asyncio.Task[bytes] | None = None
        self.answer("220", "ready")
        try:
            while await self._flush() and not self._is_over():
                reading = reading or asyncio.get_running_loop().create_task(self._reader.readline())
                done = await self._wait(reading, stopping)
                if not done:
                    self.answer("421", "idle for too long")
                    break
                for worker in self._workers & done:
                    self._end_transfer(worker)
                if reading in done:
                    line, reading = reading, None
                    if not await self._handle(line):
                        break
        finally:
            await self._close(stopping, *([reading] if reading else []))
        await self._flush()

    def answer(self, code: str, lines: str | Sequence[str] = "", is_list: bool = False) -> None:
        """Write an answer, which is sent before the next command is read."""
        self._endings += code in _ENDINGS
        self._last_code = code
        *most, last = [lines] if isinstance(lines, str) else lines
        answer = [
            f"{code}-{line}" if number == 0 or not is_list else f" {line}" for number, line in enumerate(most)
        ]
        answer.append(f"{code} {last}")
        self._writer.write("".join(f"{_printable(line)}\r\n" for line in answer).encode("utf-8", "replace"))

    def _new_connection(self) -> Connection:
        limits = self._limits
        stream = aioftp.ThrottleStreamIO(self._reader, self._writer, throttles={})
        connection = Connection(
            client_host=self._host,
            client_port=self._port,
            server_host=self._writer.get_extra_info("sockname")[0],
            command_connection=stream,
            socket_timeout=limits.stall,
            wait_future_timeout=limits.data,
            block_size=self._commands.block_size,
            extra_workers=set(),
            response=self.answer,
            restart_offset=0,
            failures=0,
        )
        connection.path_io = self._commands.path_io_factory(connection=connection)
        return connection

    async def _flush(self) -> bool:
        """Wait until the answers are sent; return whether they are."""
        try:
            async with asyncio.timeout(self._limits.stall):
                await self._writer.drain()
        except TimeoutError:
            log.info("%s: disconnected: it does not read the answers", self._peer)
            self._writer.transport.abort()
            return False
        return True

    def _is_over(self) -> bool:
        if self._draining.is_set() and not self._workers:
            self.answer("421", "the service is stopping")
            return True
        return False

    async def _wait(self, reading: "asyncio.Task[bytes]", stopping: "asyncio.Task[Any]") -> set[Any]:
        waited_for: set[Any] = {reading, *self._workers}
        if not stopping.done():
            waited_for.add(stopping)
        idle = None if self._workers else self._limits.idle
        done, _ = await asyncio.wait(waited_for, timeout=idle, return_when=asyncio.FIRST_COMPLETED)
        return done

    async def _handle(self, line: "asyncio.Task[bytes]") -> bool:
        """Run the command of a line; return whether the session continues."""
        try:
            text = _TELNET.sub(b"", line.result())
        except ValueError:
            self.answer("500", "the line is too long")
            return False
        if not text.endswith(b"\n"):  # the client has closed its side
            return False
        try:
            name, _, rest = text.decode().rstrip("\r\n").partition(" ")
        except UnicodeDecodeError:
            self.answer("501", "expected UTF-8")
            return True
        return await self._perform(name.lower(), rest)

    async def _perform(self, name: str, rest: str) -> bool:
        command: Any = self._commands.commands_mapping.get(name)
        if command is None:
            self.answer("502", "no such command")
            return True
        if name == "abor" and self._workers:
            self._abort()
            return True
        if name in _ALONE and self._workers:
            self.answer("450", "a transfer is in progress")
            return True
        try:
            goes_on: bool = await command(self._connection, rest)
        except Exception as error:
            self._failed(error)
            return True
        if self._workers and name in _ALONE:
            self._transfer, self._began = shown(f"{name.upper()} {rest}".rstrip()), time.monotonic()
        elif name in _CHANGES and self._last_code.startswith("2"):
            log.info("%s: %s %s", self._peer, name.upper(), shown(rest))
        if name not in _KEEPS_OFFSET and not self._workers:
            self._connection.restart_offset = 0
        return goes_on

    def _end_transfer(self, worker: "asyncio.Task[bool]") -> None:
        self._workers.discard(worker)
        self._connection.restart_offset = 0
        stream = self._stream
        count = 0 if stream is None else stream.count
        what = f"{self._transfer}, {count} bytes in {time.monotonic() - self._began:.1f} s"
        try:
            worker.result()
        except (Exception, asyncio.CancelledError) as error:
            log.info("%s: %s, then failed: %s", self._peer, what, reason(error))
            self._failed(error)
            if stream is not None:  # aioftp leaves it open if the file could not be opened
                stream.close()
        else:
            log.info("%s: %s", self._peer, what)
        del self._connection.stream
        while self._endings < self._endings_owed:
            self.answer("226", "transfer complete")

    def _abort(self) -> None:
        """End the transfer, with two answers: one for it and one for the command (RFC 959, 4.1.3)."""
        self._endings_owed = self._endings + 2
        self._cut_transfer()

    def _cut_transfer(self) -> None:
        # The stream too: until Python 3.12 a task that waits with a time limit may miss that it is cancelled.
        if self._stream is not None:
            self._stream.reset()
        for worker in self._workers:
            worker.cancel()

    def _failed(self, error: BaseException) -> None:
        """Answer a command or a transfer that raised an exception."""
        if isinstance(error, ConnectionError | TimeoutError | asyncio.CancelledError):
            self.answer("426", "the data connection has failed")
        elif isinstance(error, OSError):
            self.answer("452" if error.errno in _FULL else "550", error.strerror or "failed")
        else:
            log.error("%s: a command failed", self._peer, exc_info=error)
            self.answer("451", "failed")

    async def _close(self, *tasks: "asyncio.Task[Any]") -> None:
        for task in tasks:
            task.cancel()
        self._cut_transfer()
        close_data(self._connection)
        # All at once, ignoring exceptions: the client has disconnected.
        await asyncio.gather(*tasks, *self._workers, return_exceptions=True)

    @property
    def _stream(self) -> DataStream | None:
        """The latest data connection, open or not."""
        stream: DataStream | None = getattr(self._connection, "stream", None)
        return stream

    @property
    def _peer(self) -> str:
        # Not `"login" in`: aioftp creates an attribute when it is read.
        user = self._connection.login if self._connection.future.login.done() else "-"
        return f"{shown(user)}@{self._host}:{self._port}"


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)
