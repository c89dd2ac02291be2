"""What the operator asked to be run, and how its text is told apart."""

import enum
from typing import NamedTuple

__all__ = ["Target", "TargetKind"]


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
