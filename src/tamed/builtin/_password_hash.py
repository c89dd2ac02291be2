"""Hashes of passwords: scrypt (RFC 7914), written down as ``$scrypt$ln=15,r=8,p=1$SALT$DIGEST``.

That is the form of passlib, and of the PHC string format: ``ln`` is the logarithm of the cost, and salt and
digest are in base64 without padding.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass, replace
from typing import Final, Self

__all__ = ["PasswordHash"]

_COST: Final = (15, 8, 1)
"""ln, r and p of new hashes: 32 MiB of memory, and about a tenth of a second, for each guess."""

_MOST_MEMORY: Final = 256 * 1024 * 1024
"""A hash that takes more bytes than this is refused: whoever guesses would make us spend them."""

_MOST_LANES: Final = 16
_FORM: Final = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,3}),p=([0-9]{1,3})\$([A-Za-z0-9+/]{8,128})\$([A-Za-z0-9+/]{22,128})"
)


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """What is kept of a password. ``str()`` gives the text that `parse` reads."""

    ln: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def __post_init__(self) -> None:
        if min(self.ln, self.r, self.p) < 1 or self.p > _MOST_LANES or self.memory > _MOST_MEMORY:
            raise ValueError(f"its cost is out of range (ln={self.ln}, r={self.r}, p={self.p})")

    @classmethod
    def of(cls, password: str) -> Self:
        """Hash a password with a salt of its own. Takes a tenth of a second."""
        blank = cls.nobodys()
        return replace(blank, digest=blank._digest_of(password))

    @classmethod
    def nobodys(cls) -> Self:
        """Return a hash that no password has, and that costs as much to compare with as a new one."""
        return cls(*_COST, os.urandom(16), os.urandom(32))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a hash. Raises ValueError, and nothing else, for a text that is none."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError("expected a hash such as $scrypt$ln=15,r=8,p=1$SALT$DIGEST")
        ln, r, p, salt, digest = found.groups()
        return cls(int(ln), int(r), int(p), _decoded(salt), _decoded(digest))

    @property
    def memory(self) -> int:
        """The bytes of memory that computing it takes."""
        return 128 * self.r * ((1 << self.ln) + self.p)

    def fits(self, password: str) -> bool:
        """Tell whether this is the password; how long that takes does not depend on the answer. Blocks."""
        return hmac.compare_digest(self._digest_of(password), self.digest)

    def _digest_of(self, password: str) -> bytes:
        # Bytes that are no UTF-8 came in as lone surrogates, which this encodes like any other letter.
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


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("its salt or digest is not base64") from None
