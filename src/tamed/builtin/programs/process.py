"""Tamed's side of running programs: the fork server as a service, and a channel to each shim."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tamed._os.text import signal_name
from tamed.builtin.programs.output import Output
from tamed.builtin.programs.program import Program
from tamed.errors import ApplicationFailed, TamedError, Unavailable, from_os_error
from tamed.log.logger import own_logger
from tamed.service.restart import Restart
from tamed.service.service import Service

__all__ = ["Ending", "ForkServerService", "Process"]

log = own_logger("tamed.programs")


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
                self._ended.set_result(Ending.of(message["status"]))
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

    @classmethod
    def of(cls, status: int) -> "Ending":
        """Read a wait status, as of wait(2)."""
        return cls(os.waitstatus_to_exitcode(status))

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
