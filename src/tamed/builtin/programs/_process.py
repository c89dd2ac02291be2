"""A program that runs, as Tamed sees it: through the channel to its keeper."""

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from typing import Any

from tamed.builtin.keeper import Program
from tamed.errors import ApplicationFailed, TamedError, from_os_error

__all__ = ["Ending", "Process"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended.

    ``code`` is its exit status, negative if a signal ended it, as in `subprocess.Popen.returncode`; None if
    nobody knows, because its keeper was killed and took it along.
    """

    code: int | None

    @classmethod
    def of(cls, status: int) -> "Ending":
        """Read a wait status, as of wait(2)."""
        return cls(os.waitstatus_to_exitcode(status))

    def __str__(self) -> str:
        if self.code is None:
            return "its keeper was killed"
        if self.code >= 0:
            return f"it ended with status {self.code}"
        return f"it was ended by {_signal_name(-self.code)}"


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
        """Have a keeper run a program; done when that was executed.

        Raises the error that fits what the system said, and then there is no process. If this is cancelled,
        the program is stopped as if by `stop`.
        """
        try:
            writer.write(program.encode())
            return cls(await _pid(program, reader), reader, writer)
        except BaseException:
            writer.close()
            raise

    async def wait(self) -> Ending:
        """Wait until the program has ended. What it has left behind may still be there."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """Ask the program to end, and wait until nothing of it is left.

        It is killed, with all that descends from it, at its deadline. May be called more than once, and of
        one that has ended by itself. If this is cancelled, all the same is done, and nobody waits for it.
        """
        if not self._writer.is_closing():
            self._writer.write_eof()
        await asyncio.shield(self._following)

    async def gone(self) -> Ending:
        """Wait until nothing of the program is left, and return how it ended."""
        await asyncio.shield(self._following)
        return self._ended.result()

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        try:
            while told := await _receive(reader):
                self._ended.set_result(Ending.of(told["status"]))
        finally:
            if not self._ended.done():
                self._ended.set_result(Ending(None))
            self._writer.close()


async def _pid(program: Program, reader: asyncio.StreamReader) -> int:
    told = await _receive(reader)
    if "pid" not in told:
        raise _refusal(program, told)
    pid: int = told["pid"]
    return pid


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Return the next message of a keeper; an empty one if none comes any more."""
    try:
        line = await reader.readline()
    except OSError:
        line = b""
    told: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    return told


def _refusal(program: Program, told: dict[str, Any]) -> TamedError:
    what = f"cannot run {program.command[0]}"
    if not told:
        return ApplicationFailed(what, "there is no keeper for it", "see the log")
    step, number = told["failed"], told["errno"]
    remedy = ""
    if step.startswith("become user"):
        remedy = "run Tamed as root, and without a user of its own"
    elif step.startswith("execute"):
        remedy = "name an executable file, with its path or from PATH"
    return from_os_error(f"{what}: cannot {step}", OSError(number, os.strerror(number)), remedy)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time one
        return f"signal {number}"
