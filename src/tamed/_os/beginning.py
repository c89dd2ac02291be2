"""What the interpreter had when the command began, which imports this module first."""

import sys

__all__ = ["MODULES", "PATH"]

MODULES = frozenset(sys.modules)
"""The names of the modules that were loaded."""
PATH = tuple(sys.path)
"""The folders of modules, usually with that of the command's script as the first."""
