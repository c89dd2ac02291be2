"""Plugin folders: the file ``NAME.py``, or the package ``NAME/``, holds the plugin NAME.

What is imported from a plugin folder is imported without cache files: a daemon started by root leaves
nothing in other people's folders, and reads no byte code that somebody left there. The folder does not get
on ``sys.path`` either, where its files could stand in for modules of the standard library; a plugin of
several files is a package, with relative imports. A file whose name begins with an underscore, or could
not be a plugin's, is passed over.
"""

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Never

from tamed._trust import require_trusted
from tamed.errors import ApplicationFailed, TamedError, from_os_error
from tamed.plugins._candidate import Candidate, plain_name
from tamed.plugins._plugin import Plugin

VARIABLE = "TAMED_PLUGIN_PATH"
"""The environment variable that names plugin folders, separated as in PATH."""

_PREFIX = "tamed_plugin_"


def plugin_folders(named: Iterable[str | Path], environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the plugin folders in the order of the search: those named, then those of ``TAMED_PLUGIN_PATH``.

    They are made absolute, because a daemon changes its folder. An empty entry of the variable means
    nothing: unlike in ``PATH``, it is not the current folder.
    """
    from_environment = environ.get(VARIABLE, "").split(os.pathsep)
    return tuple(Path(folder).absolute() for folder in (*named, *filter(None, from_environment)))


class InFolder(Candidate):
    """A file or a package in a plugin folder.

    ``file`` is the plugin's file, or its package's ``__init__.py``.
    """

    def __init__(self, name: str, package: str, file: Path) -> None:
        super().__init__(name, package)
        self.file = file

    @property
    def _module(self) -> str:
        is_package = self.file.name == "__init__.py"
        return _PREFIX + (self.file.parent.name if is_package else self.file.stem)

    def _import(self) -> Any:
        module = _load(self._module, self.file)
        plugins = {
            plain_name(value.name): value for value in vars(module).values() if isinstance(value, Plugin)
        }
        return plugins.get(self.name, plugins)

    def _no_plugin(self, found: object) -> TamedError:
        others = list(found) if isinstance(found, dict) else []
        return ApplicationFailed(
            f"plugin {self.name}",
            f"there is no plugin of this name in {self.file}",
            f"it has: {', '.join(others)}" if others else "put @plugin above a function",
        )


def in_folders(folders: Sequence[Path]) -> list[InFolder]:
    """Return what may be plugins in these folders, in the order of the folders, then of the names.

    Raises MissingInput or PermissionRefused for a folder that cannot be read.
    """
    return [candidate for folder in folders for candidate in _in_folder(folder)]


def _in_folder(folder: Path) -> list[InFolder]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise from_os_error(f"plugin folder {folder}", error, "name another with --plugin-dir") from error
    return [
        InFolder(plain_name(entry.name.removesuffix(".py")), str(folder), file)
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
    """Imports from source, and neither reads nor writes byte code."""

    def path_stats(self, path: Any) -> Never:
        """Say that there is nothing to compare byte code with, which makes the loader leave it alone."""
        raise OSError


class _Submodules:
    """Finds the modules inside of plugins that are packages, for the same uncached import."""

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
