"""``tamed export`` and ``tamed schema``: files for other programs that agree with a deployment."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from tamed.errors import UsageError

__all__ = ["export", "schema"]

_DIFFERENT = 1  # as diff(1)


def export(
    kind: str,
    file: str,
    *,
    to: str | None,
    check: bool,
    force: bool,
    command: str | None,
    path: str | None,
    plugin_dirs: Sequence[str],
) -> int:
    """Make the files, and print them, write them or compare them."""
    from tamed.export.facts import Facts, command_of_this_installation
    from tamed.export.files import differences, write_files
    from tamed.export.systemd import units_of
    from tamed.plugins.discovery import plugin_folders

    if (check or force) and to is None:
        raise UsageError(f"{'--check' if check else '--force'} without a folder", remedy="add --to FOLDER")
    folders = plugin_folders(plugin_dirs, os.environ)
    facts = Facts.of(Path(file), None if path is None else Path(path), folders)
    tamed = command or command_of_this_installation()
    options = [] if command is None else ["--command", command]
    made_by = shlex.join(["tamed", "export", kind, *options, str(facts.file)])
    files = units_of(facts, tamed, made_by)
    if to is None:
        print("\n".join(each.text for each in files), end="")
    elif check:
        found = differences(files, Path(to))
        print(*found, sep="\n", end="\n" if found else "")
        return _DIFFERENT if found else 0
    else:
        for written in write_files(files, Path(to), force=force):
            print(f"wrote {written}")
    return 0


def schema(file: str | None, plugin_dirs: Sequence[str]) -> None:
    """Print the schema of deployment files."""
    from tamed.export.schema import schema_text
    from tamed.plugins.discovery import plugin_folders

    print(schema_text(None if file is None else Path(file), plugin_folders(plugin_dirs, os.environ)), end="")
