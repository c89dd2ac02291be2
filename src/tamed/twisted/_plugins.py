"""Twisted's plugins that make services, found by importing them.

Twisted keeps a cache beside its plugins, ``dropin.cache``: a pickle, written by whoever is allowed to. Here
it is neither read nor written: the modules in ``twisted.plugins`` only declare what there is.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from twisted import plugins as plugins_package
from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin

from tamed._trust import require_trusted
from tamed._words import did_you_mean
from tamed.errors import ApplicationFailed, UsageError, reason
from tamed.plugins.discovery import Found
from tamed.twisted._claim import claim_reactor

__all__ = ["all_makers", "all_plugins", "find_maker", "has_plugin"]


def all_plugins(folders: Sequence[Path] = ()) -> list[Found]:
    """Import all modules of plugins and return the plugins that make services, sorted by name.

    ``folders`` are searched besides the path; the modules are in their folder ``twisted/plugins``.
    """
    found = []
    for module, makers, error in _modules(folders):
        if error is not None:
            found.append(Found(module.rpartition(".")[2], "", module, reason(error)))
        found += [Found(maker.tapname, maker.description, module, None) for maker in makers]
    return sorted(found, key=lambda each: each.name)


def all_makers(folders: Sequence[Path]) -> list[Any]:
    """Return the IServiceMakers of all plugins; modules that cannot be imported have none."""
    return [maker for _, makers, _ in _modules(folders) for maker in makers]


def has_plugin(name: str, folders: Sequence[Path] = ()) -> bool:
    """Tell whether a Twisted plugin has this name."""
    return _find(name, folders) is not None


def find_maker(name: str, folders: Sequence[Path] = ()) -> Any:
    """Return the IServiceMaker of this name.

    Raises UsageError if there is none, and ApplicationFailed if a module that cannot be imported may have it.
    """
    maker = _find(name, folders)
    if maker is not None:
        return maker
    known = []
    for module, makers, error in _modules(folders):
        known += [each.tapname for each in makers]
        if error is not None and name in module:
            raise ApplicationFailed(f"{module} cannot be imported", reason(error)) from error
    remedy = did_you_mean(name, known, "`tamed plugins` lists them")
    raise UsageError(f"unknown Twisted plugin {name!r}", remedy=remedy)


def _find(name: str, folders: Sequence[Path]) -> Any:
    return next(
        (maker for _, makers, _ in _modules(folders) for maker in makers if maker.tapname == name), None
    )


def _modules(folders: Sequence[Path]) -> Iterator[tuple[str, list[Any], Exception | None]]:
    """Import each module of plugins; yield its name and its makers of services, or why it has none."""
    claim_reactor()
    _add_to_path(folders)
    for info in pkgutil.iter_modules(plugins_package.__path__, f"{plugins_package.__name__}."):
        try:
            module = importlib.import_module(info.name)
        except Exception as error:  # it runs code of others, and none may hide the rest of the list
            yield info.name, [], error
            continue
        yield info.name, [value for value in vars(module).values() if _is_maker(value)], None


def _is_maker(value: object) -> bool:
    return bool(IPlugin.providedBy(value) and IServiceMaker.providedBy(value))


def _add_to_path(folders: Sequence[Path]) -> None:
    """Let modules in ``twisted/plugins`` of these folders be found, and what they import from the folders."""
    for folder in folders:
        modules = folder / "twisted" / "plugins"
        if modules.is_dir() and str(modules) not in plugins_package.__path__:
            require_trusted(modules, "plugin folder")
            plugins_package.__path__.append(str(modules))
            sys.path.append(str(folder))  # last, where it stands in for nothing
