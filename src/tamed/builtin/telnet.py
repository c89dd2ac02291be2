"""Telnet: a Python prompt into the running process, without encryption."""

import asyncio
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tamed.builtin._login import LoginGate, PendingLogins, TooManyFailures, is_local
from tamed.builtin._prompt.dialogue import Dialogue, Limits, Sessions, quieten
from tamed.builtin._prompt.terminal import Interrupted, TooLong
from tamed.builtin._telnet_protocol import TelnetProtocol
from tamed.errors import ConfigurationError
from tamed.log.logger import own_logger
from tamed.net.endpoint import Endpoint, TcpEndpoint, UnixEndpoint
from tamed.net.stream import ProtocolServer
from tamed.passwords import PasswordFile
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.service.service import MultiService, Service

__all__ = ["Options", "telnet"]

log = own_logger("telnet")

_ATTEMPTS: Final = 3
"""Wrong passwords until a connection is closed."""

_PORT: Final = 6023

_CLOSING: Final = 20
"""Connections beyond those of sessions and logins: they get a message, and are closed."""


@dataclass
class Options(Limits):
    """The options of ``telnet``."""

    port: int | None = option(
        None, f"Listen on this TCP port ({_PORT} if only --iface is given).", short="p", ge=0, le=65535
    )
    iface: str | None = option(None, "Listen on this interface (127.0.0.1 if only --port is given).")
    listen: list[Endpoint] = option(
        [], "Listen on this endpoint. Default: a unix socket that only its owner can connect to."
    )
    password_file: Path | None = option(
        None, "File of users who may log in, and of the hashes of their passwords. Required on TCP."
    )
    let_every_local_user_in: bool = option(
        False, "Require no password on TCP: every user of this machine can run code here. Never as root."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        exposed = [str(endpoint) for endpoint in self.endpoints if not is_local(endpoint)]
        if self.password_file is not None:
            return
        if exposed:
            raise ValueError(
                f"{exposed[0]} can be reached from elsewhere, and every client could run any code;"
                " use --password-file, or listen on a unix socket"
            )
        if self.public and not self.let_every_local_user_in:
            raise ValueError(
                f"every user of this machine can connect to {self.public[0]} and run code here;"
                " use --password-file, listen on a unix socket, or add --let-every-local-user-in"
            )

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints to listen on."""
        if self.listen:
            return self.listen
        if self.port is None and self.iface is None:
            return [UnixEndpoint(str(_default_socket()), mode=0o600)]
        return [TcpEndpoint(self.iface or "127.0.0.1", _PORT if self.port is None else self.port)]

    @property
    def public(self) -> list[Endpoint]:
        """The endpoints to which every user of this machine can connect: all but unix sockets."""
        return [endpoint for endpoint in self.endpoints if not isinstance(endpoint, UnixEndpoint)]


class Reception(Service):
    """Prompts for a password, if there is a password file, and then runs a session."""

    def __init__(self, options: Options, sessions: Sessions) -> None:
        super().__init__("reception")
        self._options = options
        self._sessions = sessions
        self._pending = PendingLogins()
        self._gate: LoginGate | None = None
        if options.password_file is not None:
            self._gate = LoginGate(PasswordFile(options.password_file), log)

    @property
    def most_connections(self) -> int:
        """The maximum number of connections, in any state."""
        return self._sessions.most + self._pending.most + _CLOSING

    async def prepare(self) -> None:
        """Read files while still privileged. Not in a thread: with one, privileges cannot be dropped."""
        if self._gate is not None:
            self._gate.users.load()

    async def start(self) -> None:
        """Refuse to run without a password as root."""
        if self._gate is None and self._options.public and os.geteuid() == 0:
            raise ConfigurationError(
                f"cannot accept clients without a password on {self._options.public[0]}",
                "this process is root, and they would be root, too",
                "use --password-file, or run as another user with --user",
            )
        # It logs each connection, as Tamed does, and each invalid command, which any client can send.
        quieten("telnetlib3", logging.ERROR)

    def protocol(self) -> TelnetProtocol:
        """Return the protocol of a new connection."""
        return TelnetProtocol(self._begin, self._options.max_line)

    def _begin(self, client: TelnetProtocol) -> "asyncio.Task[None]":
        if self._gate is not None:
            self._pending.enter(client, client.host, client.abort)
        return self._sessions.watch(self._receive(client), client.peer)

    async def _receive(self, client: TelnetProtocol) -> None:
        name = "a user" if self._gate is None else await self._login(client, self._gate)
        if name is None:
            return
        if self._sessions.full:
            log.warning("refused %s: there are already %d sessions", client.peer, self._sessions.most)
            client.write("too many sessions: try again later\n")
            return
        with self._sessions.counted():
            try:
                await Dialogue(self, client, client.keyboard, self._options).converse()
            finally:
                log.info("%s from %s has disconnected", name, client.peer)

    async def _login(self, client: TelnetProtocol, gate: LoginGate) -> str | None:
        """Return the name of the user; None if the login failed."""
        try:
            async with asyncio.timeout(self._options.login_timeout):
                return await self._asked(client, gate)
        except TimeoutError:
            client.write("\nthe login took too long: goodbye\n")
        except TooManyFailures as error:
            client.write(f"{error}\n")
        except (EOFError, Interrupted, TooLong):
            pass
        finally:
            self._pending.leave(client)
        return None

    async def _asked(self, client: TelnetProtocol, gate: LoginGate) -> str | None:
        for _ in range(_ATTEMPTS):
            client.write("login: ")
            name = await client.keyboard.next(None)
            client.write("Password: ")
            client.show_input(False)
            password = await client.keyboard.next(None)
            client.show_input(True)
            client.write("\n")
            if await gate.verify(name, password, client.host):
                return name
            client.write("login incorrect\n")
        return None


def _default_socket() -> Path:
    """Return the default socket, in a folder that only this user or root can write to."""
    folder = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return Path(folder, "tamed-telnet.sock")


@plugin
def telnet(options: Options) -> Service:
    """A Python prompt into the running process, over telnet."""
    sessions = Sessions(options.max_sessions)
    reception = Reception(options, sessions)
    server = ProtocolServer(
        options.endpoints,
        reception.protocol,
        name="server",
        max_connections=reception.most_connections,
    )
    return MultiService("telnet", sessions, reception, server)
