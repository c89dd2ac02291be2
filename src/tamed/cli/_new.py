"""``tamed new``."""

from importlib.metadata import distribution
from pathlib import Path

import click

from tamed.cli._command import Command
from tamed.cli._package import Package, requirement_of
from tamed.plugins.discovery import names

__all__ = ["new"]

_HELP = """Write a small package with a service, a plugin and tests into the folder NAME.

NAME is also what the package, and the plugin in it, are called: letters, digits and dashes.

\b
Examples:
  tamed new poemhour && cd poemhour && make test
"""


@click.command(cls=Command, help=_HELP)
@click.argument("name", metavar="NAME")
def new(name: str) -> None:
    """Write a package."""
    package = Package(name, requirement_of(distribution("tamed")), taken=names(()))
    files = package.write(Path())
    click.echo(f"wrote {files} files; next: cd {package.name} && make test")
