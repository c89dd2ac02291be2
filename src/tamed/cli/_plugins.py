"""``tamed plugins``."""

import os
from collections.abc import Sequence

import click

from tamed.cli._command import Command
from tamed.plugins import available, plugin_folders

__all__ = ["plugins"]

_HELP = """List what can be run by name: the plugins of the installed packages and of plugin folders.

One that cannot be imported is listed with its reason.
"""


@click.command(cls=Command, help=_HELP)
@click.option(
    "--plugin-dir",
    "plugin_dirs",
    multiple=True,
    type=click.Path(),
    metavar="FOLDER",
    help="A folder with plugins, a file NAME.py for each.  [repeatable; env: TAMED_PLUGIN_PATH]",
)
def plugins(plugin_dirs: Sequence[str]) -> None:
    """List what can be run by name."""
    found = available(plugin_folders(plugin_dirs, os.environ))
    rows = [("NAME", "DESCRIPTION", "PACKAGE", "")]
    rows += [
        (each.name, "(cannot be run)" if each.error else each.description, each.package, each.error or "")
        for each in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, description, package, error in rows:
        click.echo(f"{name:{widths[0]}}  {description:{widths[1]}}  {package}".rstrip())
        if error:
            click.echo(f"{'':{widths[0]}}  {error}")
