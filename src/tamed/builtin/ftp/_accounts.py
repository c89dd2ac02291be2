"""Who may come in, and what they may do."""

from pathlib import Path
from typing import Final

import aioftp

from tamed.builtin._passwords import PasswordFile
from tamed.service import Service

__all__ = ["Accounts"]

_ANONYMOUS: Final = {"anonymous", "ftp"}  # the latter as in ftpd(8)


class Accounts(Service):
    """The anonymous user, if there is one, and those of a password file, which is read at the start.

    ``write`` is whether users with a password may change files; the anonymous one never may.
    """

    def __init__(self, passwords: Path | None, *, anonymous: bool, write: bool) -> None:
        super().__init__("accounts")
        self._file = None if passwords is None else PasswordFile(passwords)
        self._anonymous = _user(write=False) if anonymous else None
        self._known = _user(write=write)

    async def start(self) -> None:
        """Read the password file."""
        if self._file is not None:
            self._file.load()

    @property
    def has_passwords(self) -> bool:
        """Whether there are users with a password."""
        return self._file is not None

    def anonymous(self, name: str) -> aioftp.User | None:
        """Return the anonymous user, if that is the name and there is one."""
        return self._anonymous if name.lower() in _ANONYMOUS else None

    async def known(self, name: str, password: str) -> aioftp.User | None:
        """Return what a user with this password may do; None if there is none. Takes a tenth of a second."""
        if self._file is None or not await self._file.verify(name, password):
            return None
        return self._known


def _user(*, write: bool) -> aioftp.User:
    return aioftp.User(base_path="/", permissions=[aioftp.Permission("/", writable=write)])
