"""What the operator asked to be run, and how its text is told apart."""

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tamed.errors import TamedError, UsageError
from tamed.plugins.discovery import find, names
from tamed.twisted import is_installed

__all__ = ["Target", "TargetKind", "resolve"]


class TargetKind(enum.Enum):
    """The kinds of target."""

    PLUGIN = "plugin"
    FILE = "application file"
    MODULE = "module variable"
    DEPLOYMENT = "deployment file"
    TWISTED = "Twisted plugin"


class Target(NamedTuple):
    """A target: its kind, and what it names.

    ``name`` is the path of a file, ``package.module:variable``, or the name of a plugin.
    """

    kind: TargetKind
    name: str

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Tell a target's kind from its text alone; no file need exist.

        ``*.toml`` is a deployment file; ``*.py``, ``*.tac`` (and ``*.tap``, which is refused when it is
        loaded) and what has a slash in it is an application file; ``tamed:NAME`` is a plugin,
        ``twisted:NAME`` one of Twisted's, ``MODULE:VARIABLE`` is a variable in a module, and anything else a
        plugin.
        """
        if text.endswith(".toml"):
            return cls(TargetKind.DEPLOYMENT, text)
        if text.endswith((".py", ".tac", ".tap", ".tas")) or "/" in text:
            return cls(TargetKind.FILE, text)
        head, colon, tail = text.partition(":")
        if head == "twisted" and colon:
            return cls(TargetKind.TWISTED, tail)
        if colon and head != "tamed":
            return cls(TargetKind.MODULE, text)
        return cls(TargetKind.PLUGIN, tail if colon else text)


def resolve(text: str, folders: Sequence[Path] = ()) -> Target:
    """Return the target that a text names; ``folders`` are looked through for plugins first.

    Only a name that nobody has among Tamed's plugins is looked for among Twisted's: that imports all of
    those. Raises as `Target.parse` does.
    """
    target = Target.parse(text)
    if target.kind is not TargetKind.PLUGIN or text != target.name:  # a prefix says which is meant
        return target
    try:
        find(target.name, folders)
    except UsageError:
        if target.name not in names(folders) and is_installed():
            from tamed.twisted import has_plugin

            if has_plugin(target.name, folders):
                return Target(TargetKind.TWISTED, target.name)
    except TamedError:  # it is there, and cannot be run: told by whoever runs it
        pass
    return target
