"""Installed plugins: the entry points of distributions, in the group ``tamed.plugins``."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tamed.errors import ApplicationFailed, TamedError
from tamed.plugins._candidate import Candidate, plain_name
from tamed.plugins._words import noun

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "tamed.plugins"
"""The entry-point group."""
OURS = "tamed"
"""The distribution that is looked at first."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Installed(Candidate):
    """An entry point of a distribution."""

    entry_point: "EntryPoint"
    distribution: str
    """The distribution's name, as pip knows it."""

    @property
    def _module(self) -> str:
        # Not `entry_point.module`, which raises when the value makes no sense.
        return self.entry_point.value.partition(":")[0].strip()

    def _import(self) -> Any:
        return self.entry_point.load()

    def _no_plugin(self, found: object) -> TamedError:
        return ApplicationFailed(
            f"plugin {self.name} of {self.package}",
            f"{self.entry_point.value} is {noun(type(found).__name__)}, not a plugin",
            "put @plugin above a function",
        )

    def _failure(self, error: BaseException) -> TamedError:
        extras = ",".join(self.entry_point.extras) if isinstance(error, ModuleNotFoundError) else ""
        if extras and not self._is_own(error):
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
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return _candidates(distribution(OURS))
    except PackageNotFoundError:  # run from its sources, without being installed
        return []


def others() -> list[Installed]:
    """Return the plugins of all other distributions. Those whose metadata is broken have none.

    Where a distribution is installed twice, the first on the path counts, as it does for importing.
    """
    from importlib.metadata import distributions

    seen = {OURS}
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
        log.debug("ignoring the broken metadata of a distribution: %r", error)
        return []


def _read(distribution: "Distribution") -> Iterator[Installed]:
    if GROUP not in (distribution.read_text("entry_points.txt") or ""):
        return  # spares parsing the entry points of most distributions
    metadata = distribution.metadata  # parsed anew each time that it is asked for
    name = metadata["Name"] or "unnamed"
    package = f"{name} {metadata['Version'] or ''}".strip()
    for entry_point in distribution.entry_points.select(group=GROUP):
        yield Installed(plain_name(entry_point.name), package, entry_point, name)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
