"""``tamed password``: a line of a password file."""

import getpass
import sys

from tamed.errors import UsageError
from tamed.passwords import hash_password

__all__ = ["password"]


def password(name: str) -> None:
    """Print a line of a password file."""
    name = name.strip()
    if not name or name.startswith("#") or not name.isprintable() or ":" in name:
        raise UsageError(f"user {name!r}", "expected printable letters without a colon")
    given = _asked() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise UsageError("no password", "it is empty")
    print(f"{name}:{hash_password(given)}")


def _asked() -> str:
    given = getpass.getpass()
    if getpass.getpass("Again: ") != given:
        raise UsageError("no password", "the two are not the same")
    return given
