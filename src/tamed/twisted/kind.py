"""Twisted's programs as a kind of target: its plugins, its applications, and twistd's command line.

Importing this module loads nothing of Twisted; the first method that needs Twisted loads it. Before that, the
name of the reactor is claimed. Twisted has one reactor in a process: the one that is installed when
``twisted.internet.reactor`` is first imported. Programs usually import it at the top of a module, and would
get Twisted's default. So an import hook returns the reactor on Tamed's event loop. A process that never
imports the reactor has no cost.
"""

import importlib.util
import sys
from collections.abc import Sequence
from contextlib import chdir, nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, cast

from tamed.config.job import Job
from tamed.config.kinds import CommandLine, Kind
from tamed.config.settings import Settings
from tamed.errors import ApplicationFailed
from tamed.plugins.discovery import Found
from tamed.service.service import Service

if TYPE_CHECKING:
    from importlib.abc import Loader

__all__ = ["TwistedKind", "claim_reactor"]

_REACTOR: Final = "twisted.internet.reactor"


class TwistedKind(Kind):
    """Twisted's programs."""

    title = "Twisted plugin"

    def is_installed(self) -> bool:
        """Return whether Twisted is installed, without loading it."""
        return importlib.util.find_spec("twisted") is not None

    def prepare(self, job: Job) -> None:
        """Claim the reactor, and apply twistd's options."""
        claim_reactor()
        if job.foreign:
            from tamed.twisted._twistd import apply_twistd

            apply_twistd(job.foreign["effects"])

    def has(self, name: str, folders: Sequence[Path]) -> bool:
        """Return whether a Twisted plugin has this name; that imports all of them."""
        claim_reactor()
        from tamed.twisted._plugins import has_plugin

        return has_plugin(name, folders)

    def found(self, folders: Sequence[Path]) -> Sequence[Found]:
        """Import all modules of plugins, and return the plugins for services."""
        claim_reactor()
        from tamed.twisted._plugins import all_plugins

        return all_plugins(folders)

    def check(self, job: Job) -> None:
        """Make the plugin parse the arguments after its name."""
        claim_reactor()
        from tamed.twisted._plugins import check_options

        check_options(job)

    def make(self, job: Job, settings: Settings) -> Service:
        """Create the service of a plugin, whose arguments may contain relative paths."""
        claim_reactor()
        from tamed.twisted._plugins import make_plugin

        with nullcontext() if job.folder is None else chdir(job.folder):
            return make_plugin(job, settings)

    def adapt(self, value: object, name: str) -> Service | None:
        """Return the service for a Twisted application or service, if the program has loaded Twisted."""
        if "twisted.application.service" not in sys.modules:
            return None
        from twisted.application.service import IService

        from tamed.twisted.services import TwistedService

        if IService(value, None) is None:
            return None
        return TwistedService(value, (getattr(IService(value), "name", None) or name).replace("/", "-"))

    def explain(self, what: str, error: Exception) -> ApplicationFailed | None:
        """Return the error for a program that tried to install its own reactor."""
        if "twisted.internet.error" not in sys.modules:
            return None
        from twisted.internet.error import ReactorAlreadyInstalledError

        if not isinstance(error, ReactorAlreadyInstalledError):
            return None
        return ApplicationFailed(
            what,
            "it installs its own reactor, but Tamed runs Twisted on its own event loop",
            "remove that; --loop selects the loop",
        )

    def command_line(self, words: Sequence[str]) -> CommandLine:
        """Parse the arguments after ``twistd``."""
        if not self.is_installed():
            raise ApplicationFailed("twistd", "Twisted is not installed", "pip install 'tamed[twisted]'")
        claim_reactor()
        from tamed.twisted._twistd import parse_twistd

        return parse_twistd(words)


def claim_reactor() -> None:
    """Make every later import of the reactor return the one that runs on Tamed's event loop."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds one module, the reactor, and loads it by installing Tamed's reactor.

    It is a finder and a loader without the base classes of ``importlib.abc``, whose import takes longer than
    everything else here.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, cast("Loader", self)) if fullname == _REACTOR else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module."""

    def exec_module(self, module: ModuleType) -> None:
        from tamed.twisted.reactor import install

        del sys.modules[_REACTOR]  # Twisted refuses to install a second reactor
        install()
