"""Files of users and the hashes of their passwords, for the services that ask who somebody is."""

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tamed._logger import own_logger
from tamed.builtin._password_hash import PasswordHash
from tamed.errors import ConfigurationError, from_os_error

__all__ = ["PasswordFile", "hash_password"]

log = own_logger("tamed.builtin")

_AT_ONCE: Final = 2
"""How many passwords are looked at simultaneously: each takes a thread, and 32 MiB."""


class PasswordFile:
    """A file of lines ``NAME:HASH``, as ``python -m tamed.builtin.passwords NAME`` prints them.

    Empty lines and those that begin with ``#`` are passed over. Nobody is let in before `load`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hashes: dict[str, PasswordHash] = {}
        self._nobody = PasswordHash.nobodys()
        self._turn = asyncio.Semaphore(_AT_ONCE)

    def load(self) -> None:
        """Read the file; call this in ``prepare``, where it may still be read, or in ``start``.

        Raises MissingInput or PermissionRefused if it cannot be read and ConfigurationError, which names the
        line, if it is not what it should be; then the users are those of the last time.
        """
        try:
            with self.path.open(encoding="utf-8") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read()
        except OSError as error:
            remedy = "name a readable file"
            raise from_os_error(f"cannot read the password file {self.path}", error, remedy) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"password file {self.path}", "it is not UTF-8") from error
        self._hashes = dict(self._entries(text))
        self._turn = asyncio.Semaphore(_AT_ONCE)  # a new one, as it belongs to the loop that it is used in
        if mode & stat.S_IROTH:
            log.warning("everybody may read the password file %s: chmod o-r would end that", self.path)

    async def verify(self, user: str, password: str) -> bool:
        """Tell whether a user has this password.

        Takes about a tenth of a second, in a thread, also for a user that does not exist; two are looked at
        simultaneously, and others wait. Whoever may ask often should be slowed down by the caller.
        """
        known = self._hashes.get(user)
        async with self._turn:
            fits = await asyncio.to_thread((known or self._nobody).fits, password)
        return fits and known is not None

    def _entries(self, text: str) -> Iterator[tuple[str, PasswordHash]]:
        seen = set()
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            user, colon, hashed = line.strip().partition(":")
            if not user or not colon:
                raise self._bad(number, "expected NAME:HASH")
            if user in seen:
                raise self._bad(number, f"user {user!r} is there twice")
            seen.add(user)
            try:
                yield user, PasswordHash.parse(hashed)
            except ValueError as error:
                raise self._bad(number, f"{error}, as the password of {user!r}") from None

    def _bad(self, line: int, why: str) -> ConfigurationError:
        remedy = "make lines with: python -m tamed.builtin.passwords NAME"
        return ConfigurationError(f"password file {self.path}, line {line}", why, remedy)


def hash_password(password: str) -> str:
    """Return the text that stands for a password in a file. Blocks for a tenth of a second.

    Raises ValueError for an empty one.
    """
    if not password:
        raise ValueError("an empty password")
    return str(PasswordHash.of(password))
