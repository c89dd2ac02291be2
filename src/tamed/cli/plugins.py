"""``tamed plugins``."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import click

from tamed.cli.options import Command
from tamed.config.kinds import own_kinds
from tamed.plugins.discovery import Found, available, plugin_folders

__all__ = ["Row", "plugins"]

_PLUGINS_HELP = """List what can be run by name: the plugins of the installed packages and of plugin folders.

One that cannot be imported is listed with its reason. Where Twisted is installed, its plugins that can be run
are in a table of their own.
"""


@click.command(cls=Command, help=_PLUGINS_HELP)
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
    folders = plugin_folders(plugin_dirs, os.environ)
    found = available(folders)
    _show(_rows(found))
    for kind in own_kinds():
        if kind.is_installed():
            click.echo(f"\n{kind.title}s, which are run in the same way:")
            _show(_rows(kind.found(folders)))


class Row(NamedTuple):
    """A plugin in a table."""

    name: str
    description: str
    home: str
    error: str


def _rows(found: Sequence[Found]) -> list[Row]:
    return [Row(each.name, each.description, each.package, each.error or "") for each in found]


def _show(rows: Sequence[Row]) -> None:
    table = [Row("NAME", "DESCRIPTION", "PACKAGE", ""), *rows]
    shown = [row._replace(description="(cannot be run)") if row.error else row for row in table]
    widths = [max(len(row[column]) for row in shown) for column in range(2)]
    for row in shown:
        click.echo(f"{row.name:{widths[0]}}  {row.description:{widths[1]}}  {row.home}".rstrip())
        if row.error:
            click.echo(f"{'':{widths[0]}}  {row.error}")
