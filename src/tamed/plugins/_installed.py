"""Installed plugins: those that come with Tamed, and the entry points of other distributions.

Ours are a table, because to read what a distribution says of itself takes longer than to serve a poem.
"""

from collections.abc import Iterator
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tamed._version import __version__
from tamed.errors import ApplicationFailed, TamedError
from tamed.plugins._candidate import Candidate, plain_name
from tamed.plugins._words import noun

if TYPE_CHECKING:
    from importlib.metadata import Distribution

GROUP = "tamed.plugins"
"""The entry-point group."""

_US = "tamed"
_OURS: Final = {
    "console": "tamed.builtin.console:console [console]",
    "exec": "tamed.builtin.exec:exec_",
    "fastpoetry": "tamed.builtin.fastpoetry:fastpoetry",
    "ftp": "tamed.builtin.ftp:ftp [ftp]",
    "inetd": "tamed.builtin.inetd:inetd",
    "poetryproxy": "tamed.builtin.poetryproxy:poetryproxy",
    "portforward": "tamed.builtin.portforward:portforward",
    "socks": "tamed.builtin.socks:socks",
    "telnet": "tamed.builtin.telnet:telnet [telnet]",
    "web": "tamed.builtin.web:web [web]",
}


class Installed(Candidate):
    """An object in a distribution.

    ``value`` is where it is, as an entry point says it: ``module:object [extra]``. ``distribution`` is the
    distribution's name, as pip knows it.
    """

    def __init__(self, name: str, package: str, value: str, distribution: str) -> None:
        super().__init__(name, package)
        self.value = value
        self.distribution = distribution

    @property
    def _module(self) -> str:
        return self._path.partition(":")[0]

    @property
    def _path(self) -> str:
        return self.value.partition("[")[0].replace(" ", "")

    def _import(self) -> Any:
        module, _, names = self._path.partition(":")
        return reduce(getattr, names.split(".") if names else (), import_module(module))

    def _no_plugin(self, found: object) -> TamedError:
        return ApplicationFailed(
            f"plugin {self.name} of {self.package}",
            f"{self.value} is {noun(type(found).__name__)}, not a plugin",
            "put @plugin above a function",
        )

    def _failure(self, error: BaseException) -> TamedError:
        extras = self.value.partition("[")[2].rstrip("] ")
        if extras and isinstance(error, ModuleNotFoundError) and not self._is_own(error):
            return ApplicationFailed(
                f"plugin {self.name} of {self.package}",
                f"it needs {getattr(error, 'name', None) or 'a library'}, which is not installed",
                f"pip install '{self.distribution}[{extras}]'",
            )
        return super()._failure(error)

    def _is_own(self, error: BaseException) -> bool:
        """Tell whether the missing module is one of the plugin's own, which no extra brings."""
        missing = getattr(error, "name", None) or ""
        return missing.partition(".")[0] == self._module.partition(".")[0]


def ours() -> list[Installed]:
    """Return the plugins that come with Tamed, without a look at what else is installed."""
    return [Installed(name, f"{_US} {__version__}", value, _US) for name, value in _OURS.items()]


def others() -> list[Installed]:
    """Return the plugins of all other distributions. Those whose metadata is broken have none.

    Where a distribution is installed twice, the first on the path counts, as it does for importing.
    """
    from importlib.metadata import distributions

    seen = {_US}
    found: list[Installed] = []
    for distribution in distributions():
        candidates = _candidates(distribution)
        names = {_normal(candidate.distribution) for candidate in candidates}
        if not names & seen:
            found += candidates
        seen |= names
    return found


def _candidates(distribution: "Distribution") -> list[Installed]:
    try:
        return list(_read(distribution))
    except Exception as error:  # any file may be missing or contain anything: not our fault, nor the user's
        import logging  # not above: nothing else here logs

        logging.getLogger(__name__).debug("ignoring the broken metadata of a distribution: %r", error)
        return []


def _read(distribution: "Distribution") -> Iterator[Installed]:
    if GROUP not in (distribution.read_text("entry_points.txt") or ""):
        return  # spares parsing the entry points of most distributions
    metadata = distribution.metadata  # parsed anew each time that it is asked for
    name = metadata["Name"] or "unnamed"
    package = f"{name} {metadata['Version'] or ''}".strip()
    for entry_point in distribution.entry_points.select(group=GROUP):
        yield Installed(plain_name(entry_point.name), package, entry_point.value, name)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
