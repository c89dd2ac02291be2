"""The console: a Python prompt into the running process, over ssh, with line editing and history."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncssh

from tamed.builtin._console_ssh import (
    Access,
    ConsoleConnection,
    ConsoleServer,
    authorized_keys,
    host_key,
)
from tamed.builtin._login import LoginGate, PendingLogins
from tamed.builtin._prompt.dialogue import Limits, Sessions, quieten
from tamed.log.logger import own_logger
from tamed.net.endpoint import Endpoint, TcpEndpoint
from tamed.net.stream import ProtocolServer
from tamed.passwords import PasswordFile
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.service.service import MultiService, Service

__all__ = ["Options", "console"]

log = own_logger("console")

_SPARE: Final = 20
"""Connections beyond those of sessions and logins: without a session yet, or closing."""

_KEEPALIVE: Final = 30
"""Seconds of silence before a keepalive request; after three without an answer the client is cut off."""


@dataclass
class Options(Limits):
    """The options of ``console``."""

    port: int = option(6022, "The port number to listen on.", short="p")
    iface: str = option("127.0.0.1", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    host_key: Path = option(help="File with the host's private key; created if it does not exist.")
    authorized_keys: Path | None = option(None, "File with the public keys of users who may log in.")
    password_file: Path | None = option(
        None, "File of users who may log in with a password, and of the hashes."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        TcpEndpoint(self.iface, self.port)  # raises ValueError for invalid options
        if self.authorized_keys is None and self.password_file is None:
            raise ValueError("no user could log in; use --authorized-keys or --password-file")


class Reception(Service):
    """Reads the keys, and makes the protocol of each connection."""

    def __init__(self, options: Options, sessions: Sessions) -> None:
        super().__init__("reception")
        self._options = options
        self._sessions = sessions
        gate = None
        if options.password_file is not None:
            gate = LoginGate(PasswordFile(options.password_file), log)
        self._access = Access(options.authorized_keys, gate, PendingLogins())

    @property
    def most_connections(self) -> int:
        """The maximum number of connections, in any state."""
        return self._sessions.most + self._access.pending.most + _SPARE

    async def prepare(self) -> None:
        """Read files while still privileged. Not in a thread: with one, privileges cannot be dropped."""
        self._key = host_key(self._options.host_key)
        if self._access.gate is not None:
            self._access.gate.users.load()

    async def start(self) -> None:
        """Check that the authorized keys can be read, and set asyncssh up."""
        if self._access.keys is not None:
            await asyncio.to_thread(authorized_keys, self._access.keys)
        quieten("asyncssh", logging.WARNING)  # it logs a dozen lines for each session, with every command
        self._ssh = asyncssh.SSHServerConnectionOptions(
            server_factory=self._server,
            server_host_keys=[self._key],
            login_timeout=float(self._options.login_timeout),
            keepalive_interval=_KEEPALIVE,
            max_line_length=int(self._options.max_line),
            errors="replace",
            agent_forwarding=False,
            gss_host=None,  # otherwise it looks up this host's name in the DNS
            host_based_auth=False,
            kbdint_auth=False,
            password_auth=self._access.gate is not None,
        )

    def protocol(self) -> ConsoleConnection:
        """Return the protocol of a new connection.

        asyncssh's own functions accept connections themselves, and call this constructor. Here the server
        accepts them, so this calls it.
        """
        return ConsoleConnection(asyncio.get_running_loop(), self._ssh)

    def _server(self) -> ConsoleServer:
        return ConsoleServer(self, self._sessions, self._options, self._access)


@plugin
def console(options: Options) -> Service:
    """A Python prompt into the running process, over ssh."""
    sessions = Sessions(options.max_sessions)
    reception = Reception(options, sessions)
    server = ProtocolServer(
        options.listen or [TcpEndpoint(options.iface, options.port)],
        reception.protocol,
        name="server",
        max_connections=reception.most_connections,
    )
    return MultiService("console", sessions, reception, server)
