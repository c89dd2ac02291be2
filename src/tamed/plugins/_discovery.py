"""Discovery: finding plugins by name.

Searched in this order: plugin folders, which somebody named on purpose; the plugins that come with Tamed;
those of all other installed distributions. The first one with the name is taken. So a folder's plugin
stands in for an installed one, and no other distribution can take the name of one of ours. Two other
distributions with the same name are an error, as which of them comes first is chance. The search goes no
further than needed, because a look into hundreds of distributions takes longer than all else that happens
before a service starts.

Running one plugin imports that one only, and no cache is written.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tamed.errors import UsageError, reason
from tamed.plugins._candidate import Candidate, plain_name
from tamed.plugins._folders import in_folders
from tamed.plugins._installed import Installed, others, ours
from tamed.plugins._plugin import Plugin
from tamed.plugins._words import nearest


class Found(NamedTuple):
    """A plugin in the list of all that can be run by name."""

    name: str
    """What one types to run it."""
    description: str
    """The first line of its docstring; empty when it cannot be imported."""
    package: str
    """Where it is from: a distribution with its version (``tamed 1.0``), or a folder."""
    error: str | None
    """Why it cannot be run, on one line; None when it can."""


def find(name: str, folders: Sequence[Path] = ()) -> Plugin[...]:
    """Import and return the plugin of this name; dashes and underscores in it are the same.

    Raises UsageError when there is none (the nearest name is suggested) or when two distributions have
    one, ApplicationFailed when it cannot be imported (what it raised is the cause) or is no plugin, and
    MissingInput or PermissionRefused for a folder that cannot be read.
    """
    wanted = plain_name(name)
    for search in _searches(folders):
        matching = [candidate for candidate in search() if candidate.name == wanted]
        if clash := _clash(matching):
            raise UsageError(f"plugin {wanted}", clash, "uninstall all but one")
        if matching:
            return matching[0].load()
    near = nearest(wanted, names(folders))
    hint = f"did you mean {near!r}? " if near else ""
    raise UsageError(f"unknown plugin {name!r}", remedy=f"{hint}`tamed plugins` lists them")


def names(folders: Sequence[Path] = ()) -> list[str]:
    """Return the names of all plugins, sorted, without importing any. Raises as ``find`` does for folders."""
    return sorted({candidate.name for search in _searches(folders) for candidate in search()})


def available(folders: Sequence[Path] = ()) -> list[Found]:
    """Import every plugin and return what each one is, sorted by name.

    One that cannot be run is in the list with its reason: it cannot be imported, its options are declared
    wrongly, or its name is taken by another one. Raises as ``find`` does for folders.
    """
    found: list[Found] = []
    taken: dict[str, Candidate] = {}
    for search in _searches(folders):
        candidates = search()
        for candidate in candidates:
            rivals = [other for other in candidates if other.name == candidate.name]
            winner = taken.setdefault(candidate.name, candidate)
            hidden = "" if winner is candidate else f"hidden by the one of {winner.package}"
            found.append(_found(candidate, _clash(rivals) or hidden))
    return sorted(found, key=lambda each: each.name)


def _searches(folders: Sequence[Path]) -> Iterator[Callable[[], Sequence[Candidate]]]:
    yield lambda: in_folders(folders)
    yield ours
    yield others


def _clash(candidates: Iterable[Candidate]) -> str:
    """Say which distributions have the same name for a plugin; empty when it is one at most."""
    packages = [candidate.package for candidate in candidates if isinstance(candidate, Installed)]
    return f"it is in {' and in '.join(packages)}" if len(packages) > 1 else ""


def _found(candidate: Candidate, obstacle: str) -> Found:
    description = ""
    if not obstacle:
        try:
            plugin = candidate.load()
            description = plugin.description
            plugin.describe()
        except Exception as error:  # it runs code of others, and none may hide the rest of the list
            obstacle = reason(error)
    return Found(candidate.name, description, candidate.package, obstacle or None)
