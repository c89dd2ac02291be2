"""``PACKAGE.MODULE:VARIABLE``: importing an object by a name that an operator, or a package, specifies."""

from __future__ import annotations

from functools import reduce
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Self

__all__ = ["VariableName", "import_variable", "missing_module"]


class VariableName:
    """A module and a variable in it; the variable may be an attribute of another one: ``app.handler``."""

    def __init__(self, module: str, variable: str) -> None:
        self.module = module
        self.variable = variable

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a name. Raises ValueError, with the expected form."""
        module, _, variable = text.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), *variable.split("."))):
            raise ValueError("expected PACKAGE.MODULE:VARIABLE")
        return cls(module, variable)

    def value_in(self, module: ModuleType) -> Any:
        """Return the variable of an imported module. Raises AttributeError if it has none."""
        return reduce(getattr, self.variable.split("."), module)


def import_variable(text: str) -> Any:
    """Import the object of an entry point, which may be a module; raises any exception of the import."""
    module, _, names = text.partition(":")
    return reduce(getattr, names.split(".") if names else (), import_module(module))


def missing_module(error: Exception, name: str) -> str | None:
    """Return the module that an import did not find, if it is the module ``name`` or a parent package.

    None if the module exists, but its import failed for another reason.
    """
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing if missing and f"{name}.".startswith(f"{missing}.") else None
