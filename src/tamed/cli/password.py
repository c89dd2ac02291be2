"""``tamed password``."""

import getpass
import sys

import click

from tamed.cli.options import Command
from tamed.errors import UsageError
from tamed.passwords import hash_password

__all__ = ["password"]

_HELP = """Print a line of a password file, for the user NAME.

The password is asked for on the terminal, twice, or read from the first line of the standard input.

\b
Examples:
  tamed password john >> users         add a user
"""


@click.command(cls=Command, help=_HELP)
@click.argument("name", metavar="NAME")
def password(name: str) -> None:
    """Make a line of a password file."""
    name = name.strip()
    if not name or name.startswith("#") or not name.isprintable() or ":" in name:
        raise UsageError(f"user {name!r}", "expected printable letters without a colon")
    given = _asked() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not given:
        raise UsageError("no password", "it is empty")
    click.echo(f"{name}:{hash_password(given)}")


def _asked() -> str:
    given = getpass.getpass()
    if getpass.getpass("Again: ") != given:
        raise UsageError("no password", "the two are not the same")
    return given
