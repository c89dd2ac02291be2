"""Who may come in, and what they may do."""

from pathlib import Path
from typing import Final

import aioftp

from tamed._logger import own_logger
from tamed.builtin._login import LoginGate
from tamed.passwords import PasswordFile
from tamed.service.service import Service

__all__ = ["Accounts"]

log = own_logger("ftp")

_ANONYMOUS: Final = {"anonymous", "ftp"}  # the latter as in ftpd(8)


class Accounts(Service):
    """The anonymous user, if there is one, and those of a password file, which is read at the start.

    ``write`` is whether users with a password may change files; the anonymous one never may.
    """

    def __init__(self, passwords: Path | None, *, anonymous: bool, write: bool) -> None:
        super().__init__("accounts")
        self._gate = None if passwords is None else LoginGate(PasswordFile(passwords), log)
        self._anonymous = _user(write=False) if anonymous else None
        self._known = _user(write=write)

    async def start(self) -> None:
        """Read the password file."""
        if self._gate is not None:
            self._gate.users.load()

    @property
    def has_passwords(self) -> bool:
        """Whether there are users with a password."""
        return self._gate is not None

    def anonymous(self, name: str, host: str) -> aioftp.User | None:
        """Let the anonymous user in from a host, and return it, if that is the name and there is one."""
        if self._anonymous is None or name.lower() not in _ANONYMOUS:
            return None
        log.info("logged in from %s as %r, without a password", host, name)
        return self._anonymous

    async def known(self, name: str, password: str, host: str) -> aioftp.User | None:
        """Return what a user with this password may do; None if there is none.

        Takes a tenth of a second, and longer after failures. Raises TooManyFailures; see `LoginGate`.
        """
        if self._gate is None or not await self._gate.verify(name, password, host):
            return None
        return self._known


def _user(*, write: bool) -> aioftp.User:
    return aioftp.User(base_path="/", permissions=[aioftp.Permission("/", writable=write)])
