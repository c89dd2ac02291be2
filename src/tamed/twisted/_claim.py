"""Claiming the name of Twisted's reactor before anybody else can, and without loading Twisted.

Twisted has one reactor in a process: whichever is installed when ``twisted.internet.reactor`` is first
imported. Code that is loaded imports it at its top as a rule, and would get Twisted's own choice. So the
import itself is claimed: it gives the reactor that runs on Tamed's event loop. A process that never imports
it pays nothing.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

__all__ = ["claim_reactor", "is_installed"]

_REACTOR = "twisted.internet.reactor"


def claim_reactor() -> None:
    """See to it that the reactor which is imported from now on is the one on Tamed's loop."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def is_installed() -> bool:
    """Tell whether Twisted is installed, without loading it."""
    return importlib.util.find_spec("twisted") is not None


class _Finder:
    """Finds one module, the reactor, and loads it by installing ours in its place.

    It is a finder and a loader without the base classes of ``importlib.abc``, whose import takes longer than
    all else here.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, cast("Loader", self)) if fullname == _REACTOR else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        from tamed.twisted._reactor import install

        del sys.modules[_REACTOR]  # Twisted refuses to install a reactor where there is one
        install()
