"""Tests of a program's readiness: it has run for a while, accepts connections, or reports readiness."""

import asyncio
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Final

from tamed._os.unix_sockets import CREDENTIALS, Credentials
from tamed.net.endpoint import Endpoint, TcpEndpoint, UnixEndpoint

__all__ = ["Accepts", "Notifies", "Readiness", "RunsFor"]

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
