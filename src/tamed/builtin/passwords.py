"""Make a line of a password file: ``python -m tamed.builtin.passwords NAME``.

The password is asked for on the terminal, twice, or read from the first line of the standard input.
"""

import getpass
import sys
from collections.abc import Sequence
from typing import Final

from tamed.builtin._passwords import hash_password
from tamed.errors import ExitStatus, UsageError, status_of

__all__ = ["main"]

_USAGE: Final = "say: python -m tamed.builtin.passwords NAME"


def main(arguments: Sequence[str]) -> ExitStatus | int:
    """Write the line to the standard output; return the exit status."""
    try:
        line = _line(arguments)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return status_of(error)
    sys.stdout.write(f"{line}\n")
    return ExitStatus.OK


def _line(arguments: Sequence[str]) -> str:
    if len(arguments) != 1:
        raise UsageError("expected the name of a user", remedy=_USAGE)
    name = arguments[0].strip()
    if not name or name.startswith("#") or not name.isprintable() or ":" in name:
        raise UsageError(f"user {arguments[0]!r}", "expected printable letters without a colon")
    password = _asked() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise UsageError("no password", "it is empty")
    return f"{name}:{hash_password(password)}"


def _asked() -> str:
    password = getpass.getpass()
    if getpass.getpass("Again: ") != password:
        raise UsageError("no password", "the two are not the same")
    return password


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
