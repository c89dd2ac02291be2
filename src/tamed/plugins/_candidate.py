"""A candidate: something that may be a plugin, known by name before any of its code is imported."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any

from tamed.errors import ApplicationFailed, TamedError, reason
from tamed.plugins._plugin import Plugin


def plain_name(name: str) -> str:
    """Return a plugin's name as it is compared: with dashes, as typed, or with underscores, as in Python."""
    return name.replace("_", "-")


class Candidate(ABC):
    """Something that may be a plugin.

    ``name`` is what it is found under, and ``package`` where it is from: a distribution with its version, or
    a folder.
    """

    def __init__(self, name: str, package: str) -> None:
        self.name = name
        self.package = package

    def load(self) -> Plugin[...]:
        """Import it, and nothing else.

        Raises ApplicationFailed, saying why, when that fails or it is no plugin.
        """
        try:
            found = self._import()
        except (Exception, SystemExit) as error:
            raise self._failure(error) from error
        if not isinstance(found, Plugin):
            raise self._no_plugin(found)
        return found if found.name == self.name else found.renamed(self.name)

    @property
    @abstractmethod
    def _module(self) -> str:
        """The name of the module that is imported."""

    @abstractmethod
    def _import(self) -> Any:
        """Import the object; may raise anything."""

    @abstractmethod
    def _no_plugin(self, found: object) -> TamedError:
        """Return the error for an object that is no plugin."""

    def _failure(self, error: BaseException) -> TamedError:
        why = reason(error)
        if not isinstance(error, SyntaxError):  # which says where
            why += _place(error.__traceback__, self._module)
        return ApplicationFailed(f"plugin {self.name} of {self.package} cannot be imported", why)


def _place(traceback: TracebackType | None, module: str) -> str:
    """Say where in the plugin's own module, or in one around it or below it, something was raised."""
    place = ""
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        if f"{name}.".startswith(f"{module}.") or f"{module}.".startswith(f"{name}."):
            place = f" ({traceback.tb_frame.f_code.co_filename}, line {traceback.tb_lineno})"
        traceback = traceback.tb_next
    return place
