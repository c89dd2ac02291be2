"""``tamed plugins``: tables of the plugins."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from tamed.config.kinds import own_kinds
from tamed.plugins.discovery import Found, available, plugin_folders

__all__ = ["plugins"]


def plugins(plugin_dirs: Sequence[str]) -> None:
    """List the plugins of Tamed, then those of other frameworks."""
    folders = plugin_folders(plugin_dirs, os.environ)
    found = available(folders)
    _show(_rows(found))
    for kind in own_kinds():
        if kind.is_installed():
            print(f"\n{kind.title}s, which run in the same way:")
            _show(_rows(kind.found(folders)))


class _Row(NamedTuple):
    """A plugin in a table."""

    name: str
    description: str
    home: str
    error: str


def _rows(found: Sequence[Found]) -> list[_Row]:
    return [_Row(each.name, each.description, each.package, each.error or "") for each in found]


def _show(rows: Sequence[_Row]) -> None:
    table = [_Row("NAME", "DESCRIPTION", "PACKAGE", ""), *rows]
    shown = [row._replace(description="(cannot be run)") if row.error else row for row in table]
    widths = [max(len(row[column]) for row in shown) for column in range(2)]
    for row in shown:
        print(f"{row.name:{widths[0]}}  {row.description:{widths[1]}}  {row.home}".rstrip())
        if row.error:
            print(f"{'':{widths[0]}}  {row.error}")
