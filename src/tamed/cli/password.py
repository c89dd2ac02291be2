"""Prompts without an echo: secrets of services, and the password of ``tamed password``."""

import os
import sys

from tamed._os.text import shown
from tamed.errors import UsageError

__all__ = ["ask_secret", "password"]


def ask_secret(name: str) -> str:
    """Prompt for a secret on the terminal, and allow no core dump of this process from then on.

    Raises UsageError if this process has no terminal, or if the secret is empty or not UTF-8.
    """
    from getpass import getpass  # lazy import: most runs ask for no secret

    from tamed.unix.privileges import forbid_tracing

    try:  # without a terminal `getpass` would read standard input
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        remedy = "run it on a terminal, or use file:PATH, credential:NAME or env:NAME"
        raise UsageError(f"cannot prompt for {name}", "there is no terminal", remedy) from None
    try:
        secret = getpass(shown(f"{name}: "))
    except EOFError:
        secret = ""
    except UnicodeDecodeError:
        raise UsageError(f"no secret for {name}", "it is not UTF-8") from None
    if not secret:
        raise UsageError(f"no secret for {name}", "it is empty")
    forbid_tracing()
    return secret


def password(name: str) -> None:
    """Print a line of a password file."""
    from tamed.passwords import hash_password

    name = name.strip()
    if not name or name.startswith("#") or not name.isprintable() or ":" in name:
        raise UsageError(f"user {name!r}", "expected printable letters without a colon")
    given = _asked() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise UsageError("no password", "it is empty")
    print(f"{name}:{hash_password(given)}")


def _asked() -> str:
    from getpass import getpass

    given = getpass()
    if getpass("Again: ") != given:
        raise UsageError("no password", "the two entries differ")
    return given
