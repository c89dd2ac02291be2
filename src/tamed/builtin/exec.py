"""Programs of any kind as services: run, watched, restarted, and ended with all their descendants."""

import asyncio
import os
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from tamed._os.unix_sockets import CREDENTIALS, Credentials
from tamed.builtin.programs.options import ProgramOptions
from tamed.builtin.programs.process import Ending, ForkServerService, Output, Process
from tamed.errors import ApplicationFailed
from tamed.log.logger import own_logger
from tamed.net.accept import DEFAULT_BACKLOG, usable_backlog
from tamed.net.endpoint import Endpoint, SystemdEndpoint, TcpEndpoint, TlsEndpoint, UnixEndpoint
from tamed.net.listen import ListeningService
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.plugins.values import Duration
from tamed.service.restart import Backoff, Restart
from tamed.service.service import MultiService, Service

__all__ = [
    "Accepts",
    "Notifies",
    "Options",
    "PassedSockets",
    "ProgramService",
    "Readiness",
    "RunsFor",
    "exec_",
]

log = own_logger("exec")

_GRACE: Final = 5.0
"""Seconds after its deadline within which a killed program must have ended."""

_BETWEEN: Final = 0.05
"""Seconds between two attempts to connect."""


class Readiness(ABC):
    """A test of whether a program is ready; the same object serves each run of the program."""

    may_end: ClassVar[bool] = False
    """Whether a program that has ended successfully, such as a one-shot task, counts as ready."""

    status: str = ""
    """The program's own description of its state."""

    def begin(self, uids: Collection[int]) -> Mapping[str, str]:
        """Begin a run; return variables for the program, whose processes belong to these users."""
        return {}

    @abstractmethod
    async def wait(self) -> None:
        """Wait until the program that was just started is ready."""

    def end(self) -> None:  # noqa: B027 - most have nothing to end
        """End the run, if there is one."""


class RunsFor(Readiness):
    """A program is ready when it has run for this many seconds."""

    may_end = True

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def wait(self) -> None:
        """Wait for that time."""
        await asyncio.sleep(self._seconds)


class Accepts(Readiness):
    """A program is ready when it accepts connections. Raises ValueError if the endpoint has no address."""

    def __init__(self, endpoint: Endpoint) -> None:
        if not isinstance(endpoint, TcpEndpoint | UnixEndpoint):
            raise ValueError(  # noqa: TRY004 - an operator's mistake
                f"{endpoint}: expected an address to connect to, HOST:PORT or unix:PATH"
            )
        self._endpoint = endpoint

    async def wait(self) -> None:
        """Try to connect until that succeeds."""
        while not await _accepts(self._endpoint):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(_BETWEEN)


class Notifies(Readiness):
    """A program is ready when it reports readiness with the protocol of sd_notify(3).

    Only messages from the program's users count, because the socket has no file with a mode.
    ``READY=1`` and ``STATUS=`` are read, other variables are ignored.
    """

    def __init__(self) -> None:
        self._ready = asyncio.Event()
        self._socket: socket.socket | None = None
        self._uids: Collection[int] = ()

    def begin(self, uids: Collection[int]) -> Mapping[str, str]:
        """Listen for messages of these users."""
        self._ready = asyncio.Event()
        self._uids = uids
        self.status = ""
        name = f"tamed-notify-{secrets.token_hex(16)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{name}")
        asyncio.get_running_loop().add_reader(self._socket, self._receive, self._socket)
        return {"NOTIFY_SOCKET": f"@{name}"}

    async def wait(self) -> None:
        """Wait for the program's report."""
        await self._ready.wait()

    def end(self) -> None:
        """Close the socket."""
        sock, self._socket = self._socket, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    def _receive(self, sock: socket.socket) -> None:
        try:
            message, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
        except BlockingIOError:
            return
        if _sender(ancillary) in self._uids:
            self._take(message.decode("utf-8", "replace"))

    def _take(self, message: str) -> None:
        for line in message.splitlines():
            name, _, value = line.partition("=")
            if name == "STATUS":
                self.status = value
            elif (name, value) == ("READY", "1"):
                self._ready.set()


async def _accepts(endpoint: TcpEndpoint | UnixEndpoint) -> bool:
    try:
        if isinstance(endpoint, UnixEndpoint):
            path = endpoint.path
            _, writer = await asyncio.open_unix_connection("\0" + path[1:] if endpoint.abstract else path)
        else:
            _, writer = await asyncio.open_connection(endpoint.host or "localhost", endpoint.port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _sender(ancillary: list[tuple[int, int, Any]]) -> int | None:
    """Return the user that sent a message, as verified by the kernel."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return Credentials(*CREDENTIALS.unpack(data)).uid
    return None


@dataclass
class Options(ProgramOptions):
    """The options of ``exec``."""

    listen: list[Endpoint] = option([], "An endpoint whose socket is passed to the program as LISTEN_FDS.")
    restart: Literal["never", "on-failure", "always"] = option(
        "on-failure", "When to restart an ended program."
    )
    restart_limit: int = option(
        5, "Maximum restarts within restart-within; one more ends the application. 0 for no limit."
    )
    restart_within: Duration = option(Duration("1m"), "Period in which restarts are counted.")
    restart_pause: Duration = option(
        Duration("100ms"), "Pause before the first restart; each later pause is twice as long."
    )
    restart_pause_max: Duration = option(Duration("30s"), "Longest pause before a restart.")
    success: list[int] = option([0], "Exit status that counts as success.")
    ready_after: Duration = option(Duration("1s"), "Time after which a running program counts as ready.")
    ready_at: Endpoint | None = option(None, "Address that accepts connections when the program is ready.")
    ready_notify: bool = option(
        False, "The program reports through NOTIFY_SOCKET (sd_notify) when it is ready."
    )
    start_timeout: Duration = option(Duration("1m"), "Longest time until the program is ready.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.readiness()
        self.policy()
        if any(isinstance(endpoint, TlsEndpoint) for endpoint in self.listen):
            raise ValueError("listen: the program gets the socket itself, so it must handle TLS")

    def readiness(self) -> Readiness:
        """Return the test of readiness. Raises ValueError for options that exclude each other."""
        if self.ready_notify and self.ready_at is not None:
            raise ValueError("ready-at and ready-notify exclude each other")
        if self.ready_notify:
            return Notifies()
        return RunsFor(self.ready_after) if self.ready_at is None else Accepts(self.ready_at)

    def policy(self) -> Restart:
        """Return the restart policy. Raises ValueError for values that it does not allow."""
        backoff = Backoff(self.restart_pause, maximum=self.restart_pause_max)
        return Restart(self.restart, self.restart_limit or None, self.restart_within, backoff)


@plugin
def exec_(options: Options) -> Service:
    """Runs and watches any program."""
    fork_server = ForkServerService()
    passed = PassedSockets(options.listen, name="sockets") if options.listen else None
    program = ProgramService(options, fork_server, passed)
    parts = [fork_server, program] if passed is None else [fork_server, passed, program]
    return MultiService(options.command.name, *parts)


class ProgramService(Service):
    """A program, as a service that lives as long as the program does.

    ``start`` returns when the program is ready, and fails if the program ends before that. When the program
    ends, the service ends; with a status that is not in ``success`` it fails, and its restart policy is
    applied. ``stop`` leaves no process of the program behind.

    The program's output goes to the logger ``exec.LABEL``. ``fork_server`` must have been started before.
    ``passed`` has the sockets that are passed to the program.
    """

    def __init__(
        self, options: Options, fork_server: ForkServerService, passed: "PassedSockets | None"
    ) -> None:
        super().__init__(
            "program",
            restart=options.policy(),
            start_timeout=options.start_timeout,
            stop_timeout=options.stop_timeout + _GRACE,
        )
        self.program = options.program()
        self._options = options
        self._fork_server = fork_server
        self._readiness = options.readiness()
        self._passed = passed
        self._process: Process | None = None
        self._output: Output | None = None

    @property
    def label(self) -> str:
        """The program's name in the log: that of its multi-service, which the operator chose."""
        return self.name if self.parent is None else self.parent.name

    @property
    def pid(self) -> int | None:
        """The program's process id; None while it is not running."""
        return None if self._process is None else self._process.pid

    @property
    def summary(self) -> str:
        """The program, its process, and its own description of its state."""
        facts = [
            self.program.command[0],
            "" if self.pid is None else f"pid {self.pid}",
            self._readiness.status,
        ]
        return ", ".join(filter(None, facts))

    async def start(self) -> None:
        """Run the program, and wait until it is ready."""
        try:
            self._process = await self._launch()
            log.info("%s runs as pid %d", self.label, self._process.pid)
            await self._until_ready(self._process)
        except BaseException:
            await self._end()
            raise

    async def run(self) -> None:
        """Wait until the program ends."""
        assert self._process is not None
        ending = await self._process.wait()
        self._require_success(ending)
        log.info("%s: %s", self.label, ending)

    async def stop(self) -> None:
        """Stop the program, and wait until none of its processes is left."""
        if self._passed is not None and not self.restarting:
            self._passed.close()
        await self._end()

    async def _launch(self) -> Process:
        self._output = Output(log.getChild(self.label).info, self._options.line_limit)
        program = self.program._replace(environment={**self.program.environment, **self._variables()})
        with ExitStack() as undo:
            undo.callback(self._output.close_end)
            nothing = os.open(os.devnull, os.O_RDONLY)
            undo.callback(os.close, nothing)
            end = self._output.end
            sockets = () if self._passed is None else self._passed.sockets
            return await self._fork_server.launch(program, nothing, end, end, sockets)

    def _variables(self) -> dict[str, str]:
        identity = self.program.identity
        uids = {0, os.geteuid()} if identity is None else {0, os.geteuid(), identity.uid}
        variables = dict(self._readiness.begin(uids))
        if self._passed is not None:
            self._passed.listen()
            variables |= self._passed.variables(self.label)
        return variables

    async def _until_ready(self, process: Process) -> None:
        ready = asyncio.ensure_future(self._readiness.wait())
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                return ready.result()
            self._require_success(ended.result())
            if not self._readiness.may_end:
                raise ApplicationFailed(self.label, "it ended before it was ready")
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.wait({ready, ended})

    def _require_success(self, ending: Ending) -> None:
        if ending.code not in self._options.success:
            raise ApplicationFailed(self.label, str(ending), f"its output is in the log as exec.{self.label}")

    async def _end(self) -> None:
        process, self._process = self._process, None
        output, self._output = self._output, None
        self._readiness.end()
        if process is not None:
            await process.stop()
        if output is not None:
            await output.finish()


class PassedSockets(ListeningService):
    """Binds endpoints for a program, which gets the sockets as in sd_listen_fds(3).

    They come from the socket source of the process, so they may be those of systemd or of the supervisor, and
    they stay open while the program is restarted or replaced: clients wait in the kernel's queue.
    """

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The sockets, in the order of the endpoints."""
        return tuple(sock for listener in self.listeners for sock in listener.sockets)

    def listen(self) -> None:
        """Begin to listen; clients wait until the program accepts them."""
        backlog = usable_backlog(DEFAULT_BACKLOG)
        for listener in self.listeners:
            listener.listen(backlog)

    def variables(self, name: str) -> Mapping[str, str]:
        """Return LISTEN_FDNAMES; ``name`` is used for the sockets that have no name from systemd."""
        names = [_name(listener.endpoint) or name for listener in self.listeners for _ in listener.sockets]
        return {"LISTEN_FDNAMES": ":".join(names)}

    def close(self) -> None:
        """Close the sockets; the program has copies, and may serve the queued clients."""
        self._close_listeners()


def _name(endpoint: Endpoint) -> str:
    return endpoint.socket_name if isinstance(endpoint, SystemdEndpoint) else ""
