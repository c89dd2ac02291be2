"""Connections that are served by a program each."""

import asyncio
import socket
import time
from contextlib import ExitStack
from typing import Any, Final

from tamed._logger import own_logger
from tamed.builtin.keeper import Program
from tamed.builtin.programs._conversation import converse
from tamed.builtin.programs._output import Output
from tamed.builtin.programs._process import Process
from tamed.builtin.programs._warden import Warden
from tamed.errors import TamedError
from tamed.net import address_text
from tamed.service.service import Service

__all__ = ["Sessions", "connection_variables"]

log = own_logger("inetd")

_GRACE: Final = 5.0
"""Seconds beyond its own deadline that a program may take to be gone after it was killed."""


class Sessions(Service):
    """Runs a program for each connection. Put a `StreamServer` with ``serve`` as its handler behind it.

    The program's standard input and output are one end of a socket pair, and the bytes are passed on
    between the other end and the client, so that it makes no difference to the program whether the client
    speaks TLS. What it prints to standard error goes to the logger ``inetd``.

    A program that is not done when its connection has lasted for ``max_time`` seconds (None: no limit), or
    is cut by the server, is stopped as its `Program` says. ``stop`` waits until nothing of any is left.
    """

    def __init__(
        self,
        program: Program,
        warden: Warden,
        *,
        name: str = "programs",
        max_time: float | None = None,
        line_limit: int = 8192,
    ) -> None:
        super().__init__(name, stop_timeout=program.stop_timeout + _GRACE)
        self.program = program
        self.max_time = max_time
        self.line_limit = line_limit
        self.warden = warden
        self._running = 0
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def summary(self) -> str:
        """The program, and how many of it run."""
        return f"{self.program.command[0]}, {self._running} running"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the program for a connection until it, or its time, is over."""
        session = _Session(self, reader, writer)
        self._running += 1
        try:
            await session.serve()
        finally:
            # In a task of its own, as the server waits only a little for handlers that it has cancelled.
            ending = asyncio.get_running_loop().create_task(self._end(session))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await asyncio.shield(ending)

    async def stop(self) -> None:
        """Wait until nothing of any program is left; the server has seen to it that they end."""
        if self._ending:
            await asyncio.wait(self._ending)

    async def _end(self, session: "_Session") -> None:
        await session.end()
        self._running -= 1


class _Session:
    """One connection and its program."""

    def __init__(
        self, sessions: Sessions, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        remote = writer.get_extra_info("peername")
        self._peer = address_text(remote) if remote else "a unix client"
        self._variables = connection_variables(writer.get_extra_info("sockname"), remote)
        self._sessions = sessions
        self._reader = reader
        self._writer = writer
        self._output = Output(lambda line: log.info("%s: %s", self._peer, line), sessions.line_limit)
        self._process: Process | None = None

    async def serve(self) -> None:
        """Run the program until it, or its time, is over; `end` is to be called afterwards."""
        begun = time.monotonic()
        ours, theirs = socket.socketpair()
        try:
            with ours:
                ours.setblocking(False)
                process = self._process = await self._launch(theirs)
                async with asyncio.timeout(self._sessions.max_time):
                    await converse(self._reader, self._writer, ours)
                    ending = await process.gone()
            log.info("%s: %s, after %.1f s", self._peer, ending, time.monotonic() - begun)
        except TimeoutError:
            log.info("%s: its %g s are over", self._peer, self._sessions.max_time)
            self._writer.transport.abort()
        except TamedError as error:
            log.error("cannot serve %s: %s", self._peer, error)  # noqa: TRY400 - it tells all there is
            self._writer.transport.abort()

    async def end(self) -> None:
        """Stop the program, and wait until nothing of it is left."""
        if self._process is not None:
            await self._process.stop()
        await self._output.finish()

    async def _launch(self, theirs: socket.socket) -> Process:
        program = self._sessions.program
        program = program._replace(environment={**program.environment, **self._variables})
        with ExitStack() as undo:
            undo.callback(self._output.close_end)
            undo.enter_context(theirs)
            end = self._output.end
            return await self._sessions.warden.launch(program, theirs.fileno(), theirs.fileno(), end)


def connection_variables(local: Any, remote: Any) -> dict[str, str]:
    """Return what a program is told of its connection, by the socket addresses of its two ends.

    ``REMOTE_ADDR`` and ``REMOTE_PORT`` are those of systemd (systemd.exec(5), with ``Accept=yes``),
    ``REMOTE_HOST`` is the address too, as names are not looked up, and ``PROTO`` and ``TCP...`` are
    those of UCSPI (the UNIX Client-Server Program Interface). On a unix socket there is ``PROTO`` alone.
    """
    if not (isinstance(local, tuple) and isinstance(remote, tuple)):
        return {"PROTO": "UNIX"}
    host, port = remote[0], str(remote[1])
    return {
        "PROTO": "TCP",
        "REMOTE_ADDR": host,
        "REMOTE_HOST": host,
        "REMOTE_PORT": port,
        "TCPREMOTEIP": host,
        "TCPREMOTEPORT": port,
        "TCPLOCALIP": local[0],
        "TCPLOCALPORT": str(local[1]),
    }
