"""An ssh connection of the console: who may log in, and what they may ask for."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncssh

from tamed._logger import own_logger
from tamed.builtin._console_keys import authorized_keys
from tamed.builtin._console_session import ConsoleSession
from tamed.builtin._login import LoginGate, PendingLogins, TooManyFailures
from tamed.builtin._prompt import Limits, Sessions
from tamed.errors import TamedError
from tamed.net import address_text
from tamed.service.service import Service

__all__ = ["Access", "ConsoleConnection", "ConsoleServer"]

log = own_logger("console")

_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Access:
    """Who may log in: with a key, or with a password at the gate; and who is about to."""

    keys: Path | None
    gate: LoginGate | None
    pending: PendingLogins


class ConsoleConnection(asyncssh.SSHServerConnection):
    """A connection that ends when its server stops."""

    def connection_draining(self) -> None:
        """Say goodbye."""
        self.disconnect(asyncssh.DISC_BY_APPLICATION, "the service stops")


class ConsoleServer(asyncssh.SSHServer):
    """Lets users in to sessions, and to nothing else: no files, no forwarding.

    A connection on which there is no session for the login timeout is closed.
    """

    peer = host = "unix"

    def __init__(self, service: Service, sessions: Sessions, limits: Limits, access: Access) -> None:
        self._service = service
        self._sessions = sessions
        self._limits = limits
        self._access = access
        self._failures = 0
        self._had_password = False
        self._open = 0
        self._unused: asyncio.TimerHandle | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Take the connection."""
        self._connection = conn
        if peer := conn.get_extra_info("peername"):
            self.peer, self.host = address_text(peer), peer[0]
        self._access.pending.enter(self, self.host, conn.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._access.pending.leave(self)
        self._expect_session(False)

    async def begin_auth(self, username: str) -> bool:
        """Read the keys that may log in now; whoever it is has to show something."""
        if self._access.keys is not None:
            try:
                keys = await asyncio.to_thread(authorized_keys, self._access.keys)
            except TamedError as error:
                log.error("nobody can log in with a key: %s", error)  # noqa: TRY400 - one line says all
            else:
                self._connection.set_authorized_keys(keys)
        return True

    def password_auth_supported(self) -> bool:
        """Tell whether there are passwords."""
        return self._access.gate is not None

    async def validate_password(self, username: str, password: str) -> bool:
        """Tell whether a user has this password; that takes longer from one failure to the next."""
        assert self._access.gate is not None
        try:
            self._had_password = await self._access.gate.verify(username, password, self.host)
        except TooManyFailures as error:
            raise asyncssh.DisconnectError(asyncssh.DISC_BY_APPLICATION, str(error)) from error
        if self._had_password:
            return True
        self._failures += 1
        if self._failures == _ATTEMPTS:
            raise asyncssh.DisconnectError(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many failures")
        return False

    def auth_completed(self) -> None:
        """Take note of who it is."""
        self._access.pending.leave(self)
        if not self._had_password:  # else the gate has told
            user = self._connection.get_extra_info("username")
            log.info("logged in from %s as %r, with a key", self.host, user)
        self._expect_session(True)

    def session_requested(self) -> ConsoleSession:
        """Give a session, which sees whether there is room for it when it begins."""
        return ConsoleSession(self, self._service, self._sessions, self._limits)

    def session_begun(self) -> None:
        """Count a session."""
        self._open += 1
        self._expect_session(False)

    def session_ended(self) -> None:
        """Count it no more."""
        self._open -= 1
        self._expect_session(self._open == 0)

    def _expect_session(self, wanted: bool) -> None:
        if self._unused is not None:
            self._unused.cancel()
            self._unused = None
        if wanted:
            loop = asyncio.get_running_loop()
            self._unused = loop.call_later(self._limits.login_timeout, self._connection.close)
