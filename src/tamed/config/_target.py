"""What the operator asked to be run, and how its text is told apart."""

import enum
from dataclasses import dataclass

__all__ = ["Target", "TargetKind"]


class TargetKind(enum.Enum):
    """The kinds of target."""

    PLUGIN = "plugin"
    FILE = "application file"
    MODULE = "module variable"
    DEPLOYMENT = "deployment file"


@dataclass(frozen=True, slots=True)
class Target:
    """A target: its kind, and what it names.

    ``name`` is the path of a file, ``package.module:variable``, or the name of a plugin.
    """

    kind: TargetKind
    name: str

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Tell a target's kind from its text alone; no file need exist.

        ``*.toml`` is a deployment file; ``*.py``, ``*.tac`` and what has a slash in it is an application
        file; ``tamed:NAME`` is a plugin, ``MODULE:VARIABLE`` is a variable in a module, and anything else a
        plugin.
        """
        if text.endswith(".toml"):
            return cls(TargetKind.DEPLOYMENT, text)
        if text.endswith((".py", ".tac")) or "/" in text:
            return cls(TargetKind.FILE, text)
        head, colon, tail = text.partition(":")
        if colon and head != "tamed":
            return cls(TargetKind.MODULE, text)
        return cls(TargetKind.PLUGIN, tail if colon else text)
