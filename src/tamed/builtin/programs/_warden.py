"""The warden as a service: the process that forks a keeper for each program, and how one asks it to."""

import asyncio
import socket
import sys
from collections.abc import Sequence

from tamed._logger import own_logger
from tamed.builtin.keeper import Program
from tamed.builtin.programs._output import Output
from tamed.builtin.programs._process import Process
from tamed.errors import ApplicationFailed, Unavailable, from_os_error
from tamed.service.restart import Restart
from tamed.service.service import Service

__all__ = ["Warden"]

log = own_logger("tamed.programs")


class Warden(Service):
    """Runs programs: put it before the services that do so, in the same multi-service.

    A warden that ends unasked is replaced. Programs that run already are not touched by that.
    """

    restart = Restart("always")
    stop_timeout = 5.0  # it ends when the last program is gone, and those have been stopped before

    def __init__(self, name: str = "warden") -> None:
        super().__init__(name)
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the warden; None while there is none."""
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
        command = [sys.executable, "-P", "-m", "tamed.builtin.keeper.warden", self.full_name]
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
                raise from_os_error("cannot start a warden", error) from error
            raise

    async def run(self) -> None:
        """Watch it."""
        status = await self._process.wait()
        raise ApplicationFailed("the warden is gone", f"it ended with status {status}")

    async def stop(self) -> None:
        """Let it end, which it does when its last program is gone."""
        assert self._control is not None
        self._control.close()
        self._control = None
        await self._process.wait()
        await self._output.finish()

    async def launch(
        self, program: Program, stdin: int, stdout: int, stderr: int, sockets: Sequence[socket.socket] = ()
    ) -> Process:
        """Run a program with these descriptors, of which it gets copies; ``sockets`` are its 3 and so on.

        Done when it was executed. Raises the error that fits what the system said (`tamed.errors`), and
        Unavailable while there is no warden.
        """
        if self._control is None:
            raise Unavailable(f"cannot run {program.command[0]}", "there is no warden")
        channel, keepers_end = socket.socketpair()
        descriptors = [keepers_end.fileno(), stdin, stdout, stderr, *(sock.fileno() for sock in sockets)]
        with keepers_end:
            try:
                socket.send_fds(self._control, [b"\0"], descriptors)
            except OSError as error:
                channel.close()
                raise from_os_error(f"cannot run {program.command[0]}", error) from error
        reader, writer = await asyncio.open_unix_connection(sock=channel)
        return await Process.begin(program, reader, writer)
