"""A program for each connection, with the connection as its standard input and output."""

import asyncio
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final

from tamed.builtin.programs.options import ProgramOptions
from tamed.builtin.programs.process import ForkServerService, Output, Process
from tamed.errors import TamedError
from tamed.log.logger import own_logger
from tamed.net.endpoint import Endpoint, address_text
from tamed.net.stream import StreamServer
from tamed.plugins.option import REQUIRED, option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration
from tamed.service.service import MultiService, Service

__all__ = ["Options", "Sessions", "connection_variables", "inetd"]

log = own_logger("inetd")

_GRACE: Final = 5.0
"""Seconds after its deadline within which a killed program must have ended."""

_PIECE: Final = 64 * 1024


@dataclass
class Options(ProgramOptions):
    """The options of ``inetd``."""

    listen: list[Endpoint] = option(REQUIRED, "An endpoint to listen on.")
    max_connections: int = option(100, "Maximum number of open connections; further clients wait.")
    max_connections_per_address: int = option(
        10, "The same for one address; its further connections are closed. 0 for no limit."
    )
    max_time: Duration = option(Duration("1h"), "Longest time of a connection; 0 for no limit.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_connections < 1:
            raise ValueError("max-connections must be at least 1")
        if self.max_connections_per_address < 0:
            raise ValueError("max-connections-per-address must not be negative")


@plugin
def inetd(options: Options) -> Service:
    """Runs a program for each connection."""
    fork_server = ForkServerService()
    sessions = Sessions(options, fork_server)
    server = StreamServer(
        options.listen,
        sessions.serve,
        name="server",
        max_connections=options.max_connections,
        max_connections_per_address=options.max_connections_per_address or None,
    )
    return MultiService("inetd", fork_server, sessions, server)


class Sessions(Service):
    """Runs a program for each connection. Add a `StreamServer` with the handler ``serve`` after it.

    The program's standard input and output are one end of a socket pair, and the bytes are passed on between
    the other end and the client, so a program can serve clients that use TLS. Its standard error goes to the
    logger ``inetd``.

    When a connection has lasted for ``max_time`` seconds (0: no limit), or is aborted by the server, its
    program is stopped with the signal and the timeout of its `Program`. ``stop`` waits until no process of
    any program is left.
    """

    def __init__(self, options: Options, fork_server: ForkServerService) -> None:
        super().__init__("programs", stop_timeout=options.stop_timeout + _GRACE)
        self.program = options.program()
        self.max_time = options.max_time or None
        self.line_limit = options.line_limit
        self.fork_server = fork_server
        self._running = 0
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def summary(self) -> str:
        """The program, and the number of its processes."""
        return f"{self.program.command[0]}, {self._running} running"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the program for a connection until it, or its time, is over."""
        session = _Session(self, reader, writer)
        self._running += 1
        try:
            await session.serve()
        finally:
            # In a separate task, because the server waits only briefly for cancelled handlers.
            ending = asyncio.get_running_loop().create_task(self._end(session))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await asyncio.shield(ending)

    async def start(self) -> None:
        """Refuse a program that cannot be run, before clients come."""
        await self.fork_server.require(self.program)

    async def stop(self) -> None:
        """Wait until no process of any program is left; the server has ended their connections."""
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
                    await _converse(self._reader, self._writer, ours)
                    ending = await process.gone()
            log.info("%s: %s, after %.1f s", self._peer, ending, time.monotonic() - begun)
        except TimeoutError:
            log.info("%s: aborted after %g s", self._peer, self._sessions.max_time)
            self._writer.transport.abort()
        except TamedError as error:
            log.error("cannot serve %s: %s", self._peer, error)  # noqa: TRY400 - one line is enough
            self._writer.transport.abort()

    async def end(self) -> None:
        """Stop the program, and wait until none of its processes is left."""
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
            return await self._sessions.fork_server.launch(program, theirs.fileno(), theirs.fileno(), end)


def connection_variables(local: Any, remote: Any) -> dict[str, str]:
    """Return the variables that describe a connection, by the socket addresses of its two ends.

    ``REMOTE_ADDR`` and ``REMOTE_PORT`` are those of systemd (systemd.exec(5), with ``Accept=yes``),
    ``REMOTE_HOST`` is the address, too, because names are not looked up, and ``PROTO`` and ``TCP...`` are
    those of UCSPI (the UNIX Client-Server Program Interface). On a unix socket there is only ``PROTO``.
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


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, program: socket.socket
) -> None:
    """Relay bytes between client and program until all output of the program was relayed.

    ``program`` is Tamed's end of the socket, non-blocking. It has no transport, because one direction must
    continue when the other is broken: a program may close with unread input, and its last output still
    belongs to the client. When the client has disconnected, the program reads to the end of its input and
    cannot write.
    """
    inbound = asyncio.ensure_future(_to_program(reader, program))
    try:
        await _to_client(program, writer)
    finally:
        inbound.cancel()
        await asyncio.wait([inbound])


async def _to_program(reader: asyncio.StreamReader, program: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):  # the program no longer reads, or the client has disconnected
        while data := await reader.read(_PIECE):
            await loop.sock_sendall(program, data)
    with suppress(OSError):
        program.shutdown(socket.SHUT_WR)


async def _to_client(program: socket.socket, writer: asyncio.StreamWriter) -> None:
    while data := await _output_of(program):
        writer.write(data)
        try:
            await writer.drain()
        except OSError:
            with suppress(OSError):
                program.shutdown(socket.SHUT_RDWR)
            return


async def _output_of(program: socket.socket) -> bytes:
    """Return the next output of a program, and nothing at its end."""
    try:
        return await asyncio.get_running_loop().sock_recv(program, _PIECE)
    except ConnectionResetError:  # it ended with unread input; this error follows all its output
        return b""
