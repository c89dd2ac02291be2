"""Telnet: a Python prompt into the running process, for whoever may log in."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tamed._logger import own_logger
from tamed.builtin._passwords import PasswordFile
from tamed.builtin._prompt import (
    Dialogue,
    Interrupted,
    Limits,
    Sessions,
    Slowdown,
    TooLong,
    is_local,
    quieten,
)
from tamed.builtin._telnet_protocol import TelnetProtocol
from tamed.net import Endpoint, ProtocolServer, TcpEndpoint
from tamed.plugins import option, plugin
from tamed.service import MultiService, Service

__all__ = ["Options", "telnet"]

log = own_logger("telnet")

_ATTEMPTS: Final = 3

_REFUSED_AT_ONCE: Final = 20
"""Connections that may be told simultaneously that there is no room for them."""


@dataclass
class Options(Limits):
    """The options of ``telnet``."""

    port: int = option(6023, "The port number to listen on.", short="p")
    iface: str = option("127.0.0.1", "The interface to listen on.")
    listen: list[Endpoint] = option([], "An endpoint to listen on, instead of the interface and port.")
    password_file: Path | None = option(
        None, "The users who may log in, with the hashes of their passwords; without it, whoever can connect."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        exposed = [str(endpoint) for endpoint in self.endpoints if not is_local(endpoint)]
        if exposed and self.password_file is None:
            raise ValueError(
                f"{exposed[0]} can be reached from elsewhere, and whoever connects could do anything:"
                " say --password-file, or listen on 127.0.0.1"
            )

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where to listen."""
        return self.listen or [TcpEndpoint(self.iface, self.port)]


class Reception(Service):
    """Asks who somebody is, if there is a password file, and lets them in to a prompt."""

    def __init__(self, options: Options, sessions: Sessions) -> None:
        super().__init__("reception")
        self._options = options
        self._sessions = sessions
        self._users = PasswordFile(options.password_file) if options.password_file is not None else None
        self._slowdown = Slowdown()

    async def prepare(self) -> None:
        """Read what may not be readable later; not in a thread, as privileges are still to be dropped."""
        if self._users is not None:
            self._users.load()

    async def start(self) -> None:
        """Let clients come."""
        # Of each connection it tells what we do; of each wrong command it warns, and anybody can send those.
        quieten("telnetlib3", logging.ERROR)

    def protocol(self) -> TelnetProtocol:
        """Return the protocol of a new connection."""
        return TelnetProtocol(self._begin, self._options.max_line)

    def _begin(self, client: TelnetProtocol) -> "asyncio.Task[None] | None":
        if self._sessions.full:
            log.warning("no room for %s: there are %d sessions", client.peer, self._sessions.most)
            client.write("there are too many sessions: try again later\n")
            return None
        return self._sessions.begin(self._receive(client), client.peer)

    async def _receive(self, client: TelnetProtocol) -> None:
        name = await self._login(client)
        if name is None:
            return
        log.info("%s logged in from %s", name, client.peer)
        try:
            await Dialogue(self, client, client.keyboard, self._options).converse()
        finally:
            log.info("%s from %s has left", name, client.peer)

    async def _login(self, client: TelnetProtocol) -> str | None:
        """Return the name of who is there; None if nobody is let in."""
        if self._users is None:
            return "somebody"
        try:
            async with asyncio.timeout(self._options.login_timeout):
                return await self._asked(client, self._users)
        except TimeoutError:
            client.write("\nthat took too long: goodbye\n")
        except (EOFError, Interrupted, TooLong):
            pass
        return None

    async def _asked(self, client: TelnetProtocol, users: PasswordFile) -> str | None:
        for _ in range(_ATTEMPTS):
            client.write("login: ")
            name = await client.keyboard.next(None)
            client.write("Password: ")
            client.show_input(False)
            password = await client.keyboard.next(None)
            client.show_input(True)
            client.write("\n")
            if await users.verify(name, password):
                self._slowdown.succeeded(client.host)
                return name
            log.warning("login failed for %r from %s", name, client.peer)
            await asyncio.sleep(self._slowdown.failed(client.host))
            client.write("login incorrect\n")
        return None


@plugin
def telnet(options: Options) -> Service:
    """A Python prompt into the running process, over telnet."""
    sessions = Sessions(options.max_sessions)
    reception = Reception(options, sessions)
    server = ProtocolServer(
        options.endpoints,
        reception.protocol,
        name="server",
        max_connections=options.max_sessions + _REFUSED_AT_ONCE,
    )
    return MultiService("telnet", sessions, reception, server)
