"""Targets: the program to run, and its kind, decided from its spelling."""

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
    """A target: its kind and its name.

    ``name`` is the path of a file, ``package.module:variable``, or the name of a plugin. ``prefix`` is the
    prefix of the kind of a FOREIGN target (`tamed.config.kinds`).
    """

    kind: TargetKind
    name: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Decide a target's kind from its spelling alone; no file need exist. Never returns FOREIGN.

        ``*.toml`` is a deployment file; ``*.py``, ``*.tac`` (and ``*.tap``, which is refused when it is
        loaded) and any other text with a slash is an application file; ``tamed:NAME`` is a plugin,
        ``MODULE:VARIABLE`` is a variable in a module, and any other text a plugin.
        """
        if text.endswith(".toml"):
            return cls(TargetKind.DEPLOYMENT, text)
        if text.endswith((".py", ".tac", ".tap", ".tas")) or "/" in text:
            return cls(TargetKind.FILE, text)
        head, colon, tail = text.partition(":")
        if colon and head != "tamed":
            return cls(TargetKind.MODULE, text)
        return cls(TargetKind.PLUGIN, tail if colon else text)
