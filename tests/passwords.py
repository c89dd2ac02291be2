"""Hashes of passwords that are quickly verified, for tests of something else."""

import hashlib

from tamed.passwords import PasswordHash

_SALT = b"pepperpepper"


def cheap_hash(password: str) -> str:
    """Return what may stand for a password in a file, and costs next to nothing to compare with."""
    digest = hashlib.scrypt(password.encode(), salt=_SALT, n=1 << 4, r=8, p=1, dklen=32)
    return str(PasswordHash(4, 8, 1, _SALT, digest))
