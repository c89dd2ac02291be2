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
    FOREIGN = "program of another framework"


class Target(NamedTuple):
    """A target: its kind, and what it names.

    ``name`` is the path of a file, ``package.module:variable``, or the name of a plugin. ``prefix`` is
    that of the kind of a FOREIGN one (`tamed.config.kinds`).
    """

    kind: TargetKind
    name: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Tell a target's kind from its text alone; no file need exist. None is FOREIGN to it.

        ``*.toml`` is a deployment file; ``*.py``, ``*.tac`` (and ``*.tap``, which is refused when it is
        loaded) and what has a slash in it is an application file; ``tamed:NAME`` is a plugin,
        ``MODULE:VARIABLE`` is a variable in a module, and anything else a plugin.
        """
        if text.endswith(".toml"):
            return cls(TargetKind.DEPLOYMENT, text)
        if text.endswith((".py", ".tac", ".tap", ".tas")) or "/" in text:
            return cls(TargetKind.FILE, text)
        head, colon, tail = text.partition(":")
        if colon and head != "tamed":
            return cls(TargetKind.MODULE, text)
        return cls(TargetKind.PLUGIN, tail if colon else text)
