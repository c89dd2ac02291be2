"""Password files: users and the hashes of their passwords, for services with a login.

A file has lines ``NAME:HASH``, as ``tamed password NAME`` prints them. A hash is scrypt (RFC 7914), written
as ``$scrypt$ln=15,r=8,p=1$SALT$DIGEST``: the form of passlib, and of the PHC string format, in which ``ln``
is the logarithm of the cost, and salt and digest are in base64 without padding.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from tamed._os.trust import require_trusted
from tamed.errors import ConfigurationError, from_os_error
from tamed.log.logger import own_logger

__all__ = ["PasswordFile", "PasswordHash", "hash_password"]

log = own_logger("tamed.passwords")

_AT_ONCE: Final = 2
"""Number of passwords that are verified simultaneously: each takes a thread, and 32 MiB."""

_COST: Final = (15, 8, 1)
"""ln, r and p of new hashes: 32 MiB of memory, and about a tenth of a second, for each guess."""

_MOST_MEMORY: Final = 256 * 1024 * 1024
"""A hash that takes more bytes than this is refused: every guess of an attacker would use them."""

_MOST_LANES: Final = 16
_FORM: Final = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,3}),p=([0-9]{1,3})\$([A-Za-z0-9+/]{8,128})\$([A-Za-z0-9+/]{22,128})"
)


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """The salted hash of a password. ``str()`` gives the text that `parse` reads."""

    ln: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def __post_init__(self) -> None:
        if min(self.ln, self.r, self.p) < 1 or self.p > _MOST_LANES or self.memory > _MOST_MEMORY:
            raise ValueError(f"the cost is out of range (ln={self.ln}, r={self.r}, p={self.p})")

    @classmethod
    def of(cls, password: str) -> Self:
        """Hash a password with a salt of its own. Takes a tenth of a second."""
        blank = cls.nobodys()
        return replace(blank, digest=blank._digest_of(password))

    @classmethod
    def nobodys(cls) -> Self:
        """Return a hash that matches no password. Comparing with it takes as long as with any new hash."""
        return cls(*_COST, os.urandom(16), os.urandom(32))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a hash. Raises ValueError, and no other exception, for an invalid text."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError("expected a hash such as $scrypt$ln=15,r=8,p=1$SALT$DIGEST")
        ln, r, p, salt, digest = found.groups()
        return cls(int(ln), int(r), int(p), _decoded(salt), _decoded(digest))

    @property
    def memory(self) -> int:
        """The memory for computing it, in bytes."""
        return 128 * self.r * ((1 << self.ln) + self.p)

    def fits(self, password: str) -> bool:
        """Return whether this is the password, in constant time. Blocks for a tenth of a second."""
        return hmac.compare_digest(self._digest_of(password), self.digest)

    def _digest_of(self, password: str) -> bytes:
        # Bytes that are not UTF-8 arrive as lone surrogates, which this encodes like any other character.
        secret = password.encode("utf-8", "surrogatepass")
        return hashlib.scrypt(
            secret,
            salt=self.salt,
            n=1 << self.ln,
            r=self.r,
            p=self.p,
            maxmem=2 * _MOST_MEMORY,
            dklen=len(self.digest),
        )

    def __str__(self) -> str:
        return f"$scrypt$ln={self.ln},r={self.r},p={self.p}${_encoded(self.salt)}${_encoded(self.digest)}"


class PasswordFile:
    """A file of lines ``NAME:HASH``, as ``tamed password NAME`` prints them.

    Empty lines and lines that begin with ``#`` are ignored. Before `load`, there are no users.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hashes: dict[str, PasswordHash] = {}
        self._nobody = PasswordHash.nobodys()
        self._turn = asyncio.Semaphore(_AT_ONCE)

    def load(self) -> None:
        """Read the file; call this in ``prepare``, before privileges are dropped, or in ``start``.

        Raises MissingInput if it does not exist, PermissionRefused if it cannot be read, or if the process is
        root and other users can write the file, and ConfigurationError, which names the line, if a line is
        invalid. After an error the users stay those of the last successful load.
        """
        require_trusted(self.path, "password file")
        try:
            with self.path.open(encoding="utf-8") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read()
        except OSError as error:
            remedy = "use a readable file"
            raise from_os_error(f"cannot read the password file {self.path}", error, remedy) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"password file {self.path}", "it is not UTF-8") from error
        self._hashes = dict(self._entries(text))
        self._turn = asyncio.Semaphore(_AT_ONCE)  # a new one, because it belongs to the loop that uses it
        if mode & stat.S_IROTH:
            log.warning("all users can read the password file %s; run chmod o-r on it", self.path)

    async def verify(self, user: str, password: str) -> bool:
        """Return whether a user has this password.

        Takes about a tenth of a second, in a thread, also for a user that does not exist. Two calls run
        simultaneously, others wait. The caller should limit the rate of guesses.
        """
        known = self._hashes.get(user)
        # Shielded: the thread continues after its client disconnects, and must count until it ends.
        fits = await asyncio.shield(asyncio.ensure_future(self._fits(known or self._nobody, password)))
        return fits and known is not None

    async def _fits(self, hashed: PasswordHash, password: str) -> bool:
        async with self._turn:
            return await asyncio.to_thread(hashed.fits, password)

    def _entries(self, text: str) -> Iterator[tuple[str, PasswordHash]]:
        seen = set()
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            user, colon, hashed = line.strip().partition(":")
            if not user or not colon:
                raise self._bad(number, "expected NAME:HASH")
            if user in seen:
                raise self._bad(number, f"user {user!r} is listed twice")
            seen.add(user)
            try:
                yield user, PasswordHash.parse(hashed)
            except ValueError as error:
                raise self._bad(number, f"{error}, as the password of {user!r}") from None

    def _bad(self, line: int, why: str) -> ConfigurationError:
        remedy = "make lines with: tamed password NAME"
        return ConfigurationError(f"password file {self.path}, line {line}", why, remedy)


def hash_password(password: str) -> str:
    """Return the hash of a password, as text for a password file. Blocks for a tenth of a second.

    Raises ValueError for an empty one.
    """
    if not password:
        raise ValueError("the password is empty")
    return str(PasswordHash.of(password))


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("the salt or digest is not base64") from None
