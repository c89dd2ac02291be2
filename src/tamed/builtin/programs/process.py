"""Tamed's side of running programs: the fork server as a service, a channel to each shim, and the output."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from tamed._os.text import shown, signal_name
from tamed.builtin.programs.shim import Program
from tamed.errors import ApplicationFailed, TamedError, Unavailable, from_os_error
from tamed.log.logger import own_logger
from tamed.service.restart import Restart
from tamed.service.service import Service

__all__ = ["Ending", "ForkServerService", "Lines", "Output", "Process"]

log = own_logger("tamed.programs")

_READ: Final = 4096
"""Bytes to read in one turn of the event loop, so that a program with endless output does not block it."""

_PATIENCE: Final = 1.0
"""Seconds to wait for the end of the output of an ended program."""

_MORE: Final = " [...]"


class ForkServerService(Service):
    """Runs programs for the services that come after it in the same multi-service.

    A fork server that ends unexpectedly is replaced. Running programs are not affected.
    """

    restart = Restart("always")

    def __init__(self) -> None:
        super().__init__("fork-server")
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the fork server; None while there is none."""
        return None if self._control is None else self._process.pid

    @property
    def summary(self) -> str:
        """Its process."""
        return "" if self.pid is None else f"pid {self.pid}"

    async def start(self) -> None:
        """Start the process."""
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        self._output = Output(log.error)
        command = [sys.executable, "-P", "-m", "tamed.builtin.programs.shim", self.full_name]
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=theirs.fileno(),
                    stdout=self._output.end,
                    stderr=self._output.end,
                    start_new_session=True,  # away from the terminal and its Ctrl-C
                )
        except BaseException as error:
            self._control.close()
            await self._output.finish()
            if isinstance(error, OSError):
                raise from_os_error("cannot start a fork server", error) from error
            raise

    async def run(self) -> None:
        """Watch the process."""
        status = await self._process.wait()
        raise ApplicationFailed("the fork server has ended", f"it ended with status {status}")

    async def stop(self) -> None:
        """Close the fork server's socket; it ends after its last program."""
        assert self._control is not None
        self._control.close()
        self._control = None
        await self._process.wait()
        await self._output.finish()

    async def launch(
        self, program: Program, stdin: int, stdout: int, stderr: int, sockets: Sequence[socket.socket] = ()
    ) -> "Process":
        """Run a program with copies of these descriptors; ``sockets`` are its descriptors from 3 on.

        Returns when the program was executed. Raises the `tamed.errors` exception for the system's error, and
        Unavailable while there is no fork server. If this is cancelled, the program is stopped.
        """
        if self._control is None:
            raise Unavailable(f"cannot run {program.command[0]}", "there is no fork server")
        channel, shims_end = socket.socketpair()
        descriptors = [shims_end.fileno(), stdin, stdout, stderr, *(sock.fileno() for sock in sockets)]
        with shims_end:
            try:
                socket.send_fds(self._control, [b"\0"], descriptors)
            except OSError as error:
                channel.close()
                raise from_os_error(f"cannot run {program.command[0]}", error) from error
        reader, writer = await asyncio.open_unix_connection(sock=channel)
        return await Process.begin(program, reader, writer)

    async def require(self, program: Program) -> None:
        """Take all steps of `launch` but the exec. Raises what that raises, also if there is no such file."""
        with open(os.devnull, "r+b", buffering=0) as file:  # noqa: ASYNC230, PTH123 - it does not block
            null = file.fileno()
            process = await self.launch(program._replace(is_trial=True), null, null, null)
        await process.gone()


class Process:
    """A program that runs, or ran. ``pid`` is its process id, and its process group's and session's too."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        loop = asyncio.get_running_loop()
        self._writer = writer
        self._ended: asyncio.Future[Ending] = loop.create_future()
        self._following = loop.create_task(self._follow(reader), name=f"program {pid}")

    @classmethod
    async def begin(
        cls, program: Program, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> "Process":
        """Send a program to its shim, and return when it was executed; see `ForkServerService.launch`."""
        try:
            writer.write(program.encode())
            return cls(await _pid(program, reader), reader, writer)
        except BaseException:
            writer.close()
            raise

    async def wait(self) -> "Ending":
        """Wait until the program has ended. Processes that it left behind may still exist."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """Send the program its stop signal, and wait until none of its processes is left.

        At its deadline it is killed, with all its descendants. May be called repeatedly, and for a program
        that has ended by itself. If this is cancelled, the program is stopped nevertheless.
        """
        if not self._writer.is_closing():
            self._writer.write_eof()
        await asyncio.shield(self._following)

    async def gone(self) -> "Ending":
        """Wait until no process of the program is left, and return how it ended."""
        await asyncio.shield(self._following)
        return self._ended.result()

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        try:
            while message := await _receive(reader):
                self._ended.set_result(Ending(os.waitstatus_to_exitcode(message["status"])))
        finally:
            if not self._ended.done():
                self._ended.set_result(Ending(None))
            self._writer.close()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended.

    ``code`` is its exit status, negative if a signal ended it, as in `subprocess.Popen.returncode`; None if
    it is unknown, because the shim was killed, and with it the program.
    """

    code: int | None

    def __str__(self) -> str:
        if self.code is None:
            return "its shim was killed"
        if self.code >= 0:
            return f"it ended with status {self.code}"
        return f"it was ended by {signal_name(-self.code)}"


async def _pid(program: Program, reader: asyncio.StreamReader) -> int:
    answer = await _receive(reader)
    if "pid" not in answer:
        raise _refusal(program, answer)
    pid: int = answer["pid"]
    return pid


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Return the next message of a shim; an empty one after the last."""
    try:
        line = await reader.readline()
    except OSError:
        line = b""
    message: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    return message


def _refusal(program: Program, answer: dict[str, Any]) -> TamedError:
    what = f"cannot run {program.command[0]}"
    if not answer:
        return ApplicationFailed(what, "its shim has ended", "see the log")
    step, number = answer["failed"], answer["errno"]
    remedy = ""
    if step.startswith("become user"):
        remedy = "run Tamed as root, without --user"
    elif step.startswith("execute"):
        remedy = "use an executable file, with its path or from PATH"
    return from_os_error(f"{what}: cannot {step}", OSError(number, os.strerror(number)), remedy)


class Lines:
    r"""Splits bytes that come in pieces into lines.

    A line longer than ``limit`` bytes is cut, not within a character, and all but its last piece end in
    ``[...]``. Bytes that are not UTF-8 and control characters, tabs aside, are written as ``\x1b``, so that
    a program can neither forge a line of the log nor control the terminal of its reader. Empty lines are
    left out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 4)
        self._part = b""

    def feed(self, data: bytes) -> list[str]:
        """Add bytes, and return the lines that they complete; little more than the limit is kept."""
        *whole, self._part = (self._part + data).split(b"\n")
        lines = [text for line in whole for text in self._pieces(line)]
        while len(self._part.removesuffix(b"\r")) > self._limit:  # the \r may belong to the end of the line
            piece, self._part = self._cut(self._part)
            lines.append(_readable(piece) + _MORE)
        return lines

    def finish(self) -> list[str]:
        """Return the last line, which has no end."""
        rest, self._part = self._part, b""
        return self._pieces(rest)

    def _pieces(self, line: bytes) -> list[str]:
        pieces = []
        line = line.removesuffix(b"\r")
        while len(line) > self._limit:
            piece, line = self._cut(line)
            pieces.append(_readable(piece) + _MORE)
        return [*pieces, _readable(line)] if line else pieces

    def _cut(self, line: bytes) -> tuple[bytes, bytes]:
        end = self._limit
        while end > self._limit - 3 and line[end] & 0xC0 == 0x80:  # within a character of UTF-8
            end -= 1
        return line[:end], line[end:]


class Output:
    """A pipe for the output of a program; ``write`` is called with each line.

    ``end`` is the descriptor for the program. The running event loop reads the pipe until
    `finish`.
    """

    def __init__(self, write: Callable[[str], object], limit: int = 8192) -> None:
        self._source, self.end = os.pipe()
        os.set_blocking(self._source, False)
        self._write = write
        self._lines = Lines(limit)
        self._loop = asyncio.get_running_loop()
        self._is_over: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._source, self._read)

    def close_end(self) -> None:
        """Close this process's copy of the program's end. Idempotent."""
        end, self.end = self.end, -1
        if end >= 0:
            os.close(end)

    async def finish(self) -> None:
        """Read to the end, which comes when no process has the other end open, and close the pipe."""
        self.close_end()
        with suppress(TimeoutError):  # some other process has the other end
            await asyncio.wait_for(asyncio.shield(self._is_over), _PATIENCE)
        self._close()

    def _read(self) -> None:
        try:
            data = os.read(self._source, _READ)
        except BlockingIOError:
            return
        for line in self._lines.feed(data) if data else self._lines.finish():
            self._write(line)
        if not data:
            self._close()

    def _close(self) -> None:
        if not self._is_over.done():
            self._is_over.set_result(None)
            self._loop.remove_reader(self._source)
            os.close(self._source)


def _readable(line: bytes) -> str:
    return shown(line.decode("utf-8", "backslashreplace"))
