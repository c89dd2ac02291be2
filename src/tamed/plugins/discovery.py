"""Discovery: finding plugins by name.

The search has this order: the plugin folders, which the operator named; the plugins that come with Tamed; the
plugins of all other installed distributions. The first plugin with the name is used. So a folder's plugin
replaces an installed one, and no other distribution can take the name of one of Tamed's plugins. Two other
distributions with the same plugin name are an error, because their order is accidental. The search stops as
early as possible: reading the metadata of hundreds of distributions takes longer than everything else before
a service starts.

Running a plugin imports only that plugin, and writes no cache.
"""

import importlib.machinery
import importlib.util
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Never

from tamed._os.text import nearest, noun
from tamed._os.trust import require_trusted
from tamed._os.variables import import_variable
from tamed._version import __version__
from tamed.errors import ApplicationFailed, PermissionRefused, TamedError, UsageError, from_os_error, reason
from tamed.plugins.plugin import Plugin

if TYPE_CHECKING:
    from importlib.metadata import Distribution

__all__ = ["Found", "available", "find", "names", "plugin_folders"]


def _plain_name(name: str) -> str:
    """Return a plugin's name with dashes in place of underscores, for comparisons."""
    return name.replace("_", "-")


class _Candidate(ABC):
    """An object or a file that may be a plugin.

    ``name`` is the name for the search, ``package`` the origin (a distribution with its version, or a
    folder), and ``module`` the name of the module that is imported.
    """

    def __init__(self, name: str, package: str, module: str) -> None:
        self.name = name
        self.package = package
        self.module = module

    def load(self) -> Plugin[...]:
        """Import it, and nothing else.

        Raises ApplicationFailed, with the reason, when that fails or it is not a plugin, and
        PermissionRefused if other users can write the file.
        """
        try:
            found = self._import()
        except PermissionRefused:
            raise
        except (Exception, SystemExit) as error:
            raise self._failure(error) from (None if self._lacks_extra(error) else error)
        if not isinstance(found, Plugin):
            raise self._no_plugin(found)
        return found if found.name == self.name else found.renamed(self.name)

    @abstractmethod
    def _import(self) -> Any:
        """Import the object; may raise anything."""

    @abstractmethod
    def _no_plugin(self, found: object) -> TamedError:
        """Return the error for an object that is not a plugin."""

    def _lacks_extra(self, error: BaseException) -> bool:
        """Return whether a library is missing that an extra of the plugin's distribution installs."""
        return False

    def _failure(self, error: BaseException) -> TamedError:
        why = reason(error)
        if not isinstance(error, SyntaxError):  # its text contains the place
            why += _place(error.__traceback__, self.module)
        return ApplicationFailed(f"plugin {self.name} of {self.package} cannot be imported", why)


def _place(traceback: TracebackType | None, module: str) -> str:
    """Return the place in the plugin's module, its parent or its submodules that raised the exception."""
    place = ""
    while traceback is not None:
        name = traceback.tb_frame.f_globals.get("__name__", "")
        if f"{name}.".startswith(f"{module}.") or f"{module}.".startswith(f"{name}."):
            place = f" ({traceback.tb_frame.f_code.co_filename}, line {traceback.tb_lineno})"
        traceback = traceback.tb_next
    return place


VARIABLE = "TAMED_PLUGIN_PATH"
"""The environment variable that names plugin folders, separated as in PATH."""

_PREFIX = "tamed_plugin_"


def plugin_folders(named: Iterable[str | Path], environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the plugin folders in the order of the search: those named, then those of ``TAMED_PLUGIN_PATH``.

    They are made absolute, because a daemon changes its folder. An empty entry of the variable is ignored:
    unlike in ``PATH``, it is not the current folder.
    """
    from_environment = environ.get(VARIABLE, "").split(os.pathsep)
    return tuple(Path(folder).absolute() for folder in (*named, *filter(None, from_environment)))


class _InFolder(_Candidate):
    """A file or a package in a plugin folder.

    ``file`` is the plugin's file, or its package's ``__init__.py``.
    """

    def __init__(self, name: str, package: str, file: Path) -> None:
        is_package = file.name == "__init__.py"
        super().__init__(name, package, _PREFIX + (file.parent.name if is_package else file.stem))
        self.file = file

    def _import(self) -> Any:
        module = _load(self.module, self.file)
        plugins = {
            _plain_name(value.name): value for value in vars(module).values() if isinstance(value, Plugin)
        }
        return plugins.get(self.name, plugins)

    def _no_plugin(self, found: object) -> TamedError:
        others = list(found) if isinstance(found, dict) else []
        return ApplicationFailed(
            f"plugin {self.name}",
            f"there is no plugin of this name in {self.file}",
            f"it has: {', '.join(others)}" if others else "decorate a function with @plugin",
        )


def _in_folder(folder: Path) -> list[_InFolder]:
    """Return the possible plugins in a folder. Raises as `find` does if it cannot be read."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise from_os_error(f"plugin folder {folder}", error, "use another with --plugin-dir") from error
    return [
        _InFolder(_plain_name(entry.name.removesuffix(".py")), str(folder), file)
        for entry in entries
        if (file := _plugin_file(entry)) is not None
    ]


def _plugin_file(entry: Path) -> Path | None:
    name = entry.name.removesuffix(".py")
    if name.startswith("_") or not name.replace("_", "").replace("-", "").isalnum():
        return None
    file = entry / "__init__.py" if name == entry.name else entry
    return file if file.is_file() else None


def _load(name: str, file: Path) -> ModuleType:
    """Import a file once, as a module of this name."""
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(file):
        return loaded
    require_trusted(file, "plugin")
    _forget(name)
    if _Submodules not in sys.meta_path:
        sys.meta_path.insert(0, _Submodules)
    is_package = file.name == "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name,
        file,
        loader=_Uncached(name, str(file)),
        submodule_search_locations=[str(file.parent)] if is_package else None,
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _forget(name)
        raise
    return module


def _forget(name: str) -> None:
    for module in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
        del sys.modules[module]


class _Uncached(importlib.machinery.SourceFileLoader):
    """Imports from source; reads and writes no bytecode."""

    def path_stats(self, path: Any) -> Never:
        """Raise OSError: without the source file's mtime and size, the loader uses no bytecode."""
        raise OSError


class _Submodules:
    """Finds the submodules of plugins that are packages, for the same uncached import."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is None or not name.startswith(_PREFIX):
            return None
        kinds = (
            (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
            (_Uncached, importlib.machinery.SOURCE_SUFFIXES),
        )
        finders = (importlib.machinery.FileFinder(folder, *kinds) for folder in path)
        return next((spec for finder in finders if (spec := finder.find_spec(name)) is not None), None)


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


class _Installed(_Candidate):
    """An object in a distribution.

    ``value`` is that of the entry point: ``module:object [extra]``. ``distribution`` is the name of the
    distribution for pip.
    """

    def __init__(self, name: str, package: str, value: str, distribution: str) -> None:
        path, _, extras = value.partition("[")
        self._path = path.replace(" ", "")
        self._extras = extras.rstrip("] ")
        super().__init__(name, package, self._path.partition(":")[0])
        self.value = value
        self.distribution = distribution

    def _import(self) -> Any:
        return import_variable(self._path)

    def _no_plugin(self, found: object) -> TamedError:
        return ApplicationFailed(
            f"plugin {self.name} of {self.package}",
            f"{self.value} is {noun(type(found).__name__)}, not a plugin",
            "decorate a function with @plugin",
        )

    def _lacks_extra(self, error: BaseException) -> bool:
        missing = (getattr(error, "name", None) or "").partition(".")[0]
        is_own = missing == self.module.partition(".")[0]  # which no extra installs
        return bool(self._extras) and isinstance(error, ModuleNotFoundError) and not is_own

    def _failure(self, error: BaseException) -> TamedError:
        if self._lacks_extra(error):
            return ApplicationFailed(
                f"plugin {self.name} of {self.package}",
                f"it needs {getattr(error, 'name', None) or 'a library'}, which is not installed",
                f"pip install '{self.distribution}[{self._extras}]'",
            )
        return super()._failure(error)


def _ours() -> list[_Installed]:
    """Return the plugins that come with Tamed, without reading the metadata of other distributions."""
    return [_Installed(name, f"{_US} {__version__}", value, _US) for name, value in _OURS.items()]


def _others() -> list[_Installed]:
    """Return the plugins of all other distributions. A distribution with broken metadata has none.

    Where a distribution is installed twice, the first on the path counts, as it does for importing.
    """
    from importlib.metadata import distributions

    seen = {_US}
    found: list[_Installed] = []
    for distribution in distributions():
        candidates = _candidates(distribution)
        names = {re.sub("[_.]", "-", candidate.distribution.lower()) for candidate in candidates}
        if not names & seen:
            found += candidates
        seen |= names
    return found


def _candidates(distribution: "Distribution") -> list[_Installed]:
    try:
        return list(_read(distribution))
    except Exception as error:  # its files may be missing or broken, without the user's fault
        import logging  # lazy import: nothing else here logs

        logging.getLogger(__name__).debug("ignoring the broken metadata of a distribution: %r", error)
        return []


def _read(distribution: "Distribution") -> Iterator[_Installed]:
    if GROUP not in (distribution.read_text("entry_points.txt") or ""):
        return  # most distributions: their entry points need no parsing
    metadata = distribution.metadata  # kept, because each access parses it again
    name = metadata["Name"] or "unnamed"
    package = f"{name} {metadata['Version'] or ''}".strip()
    for entry_point in distribution.entry_points.select(group=GROUP):
        yield _Installed(_plain_name(entry_point.name), package, entry_point.value, name)


class Found(NamedTuple):
    """A plugin in the list of all that can be run by name."""

    name: str
    """Its name on the command line."""
    description: str
    """The first line of its docstring; empty when it cannot be imported."""
    package: str
    """Its origin: a distribution with its version (``tamed 1.0``), or a folder."""
    error: str | None
    """Why it cannot run, on one line; None when it can."""


def find(name: str, folders: Sequence[Path] = ()) -> Plugin[...]:
    """Import and return the plugin of this name; dashes and underscores in it are the same.

    Raises UsageError when there is none (and suggests the nearest name) or when two distributions have one,
    ApplicationFailed when it cannot be imported (the exception is the cause) or is not a plugin, and
    MissingInput or PermissionRefused for a folder that cannot be read.
    """
    wanted = _plain_name(name)
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
    """Import every plugin and return a list of them, sorted by name.

    A plugin that cannot run is in the list with the reason: it cannot be imported, its options are declared
    wrongly, or another plugin has its name. Raises as ``find`` does for folders.
    """
    found: list[Found] = []
    taken: dict[str, _Candidate] = {}
    for search in _searches(folders):
        candidates = search()
        for candidate in candidates:
            rivals = [other for other in candidates if other.name == candidate.name]
            winner = taken.setdefault(candidate.name, candidate)
            hidden = "" if winner is candidate else f"hidden by that of {winner.package}"
            found.append(_found(candidate, _clash(rivals) or hidden))
    return sorted(found, key=lambda each: each.name)


def _searches(folders: Sequence[Path]) -> Iterator[Callable[[], Sequence[_Candidate]]]:
    yield lambda: [candidate for folder in folders for candidate in _in_folder(folder)]
    yield _ours
    yield _others


def _clash(candidates: Iterable[_Candidate]) -> str:
    """Return the reason why distributions clash over a plugin's name; empty if at most one has it."""
    packages = [candidate.package for candidate in candidates if isinstance(candidate, _Installed)]
    return f"it is in {' and in '.join(packages)}" if len(packages) > 1 else ""


def _found(candidate: _Candidate, obstacle: str) -> Found:
    description = ""
    if not obstacle:
        try:
            plugin = candidate.load()
            description = plugin.description
            plugin.describe()
        except Exception as error:  # an error in one plugin's code must not hide the rest of the list
            obstacle = reason(error)
    return Found(candidate.name, description, candidate.package, obstacle or None)
