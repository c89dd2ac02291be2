"""The undocumented parts of ``prometheus_client`` that Tamed uses.

The library chooses its value class when its module ``values`` is loaded, before the first metric exists, and
any library may load it. So the class is replaced at that moment; a process that never loads it has no cost.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

__all__ = ["Adapters", "Inform", "adopt"]

Inform = Callable[[str, Sequence[tuple[str, str]], Mapping[str, object], str], None]
"""Receives an info metric: its name, its labels, its texts, its help text."""

Adapters = dict[str, Callable[[Any], None]]
"""Functions to call with a module after it is loaded, by the module's name."""

_OWN_MODE: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def adopt(value_class: Callable[..., Any], inform: Inform) -> None:
    """Make all metrics of ``prometheus_client`` in this process store their values with a value class.

    Does nothing if the environment selects the multiprocess mode of ``prometheus_client`` itself.
    """
    if any(name in os.environ for name in _OWN_MODE):
        return
    adapters: Adapters = {
        "prometheus_client.values": lambda module: setattr(module, "ValueClass", value_class),
        "prometheus_client.metrics": lambda module: _adapt_metrics(module, inform),
    }
    for name, adapt in adapters.items():
        if (module := sys.modules.get(name)) is not None:
            adapt(module)
    sys.meta_path.insert(0, _Finder(adapters))


def _adapt_metrics(module: Any, inform: Inform) -> None:
    set_info, set_function = module.Info.info, module.Gauge.set_function

    def info(self: Any, val: dict[str, str]) -> None:
        set_info(self, val)
        labels = tuple(zip(self._labelnames, self._labelvalues, strict=True))
        inform(self._name, labels, val, self._documentation)

    def function(self: Any, f: Callable[[], float]) -> None:
        set_function(self, f)
        self._value.set(float("nan"))  # only this process can call it, so others see no value

    module.Info.info, module.Gauge.set_function = info, function


class _Finder:
    """Finds the modules to adapt.

    It has no base class of ``importlib.abc``, whose import takes longer than all the rest.
    """

    def __init__(self, adapters: Adapters) -> None:
        self._adapters = adapters

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        adapt = self._adapters.get(fullname)
        spec = None if adapt is None else PathFinder.find_spec(fullname, path, target)
        if adapt is not None and spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", _AdaptingLoader(spec.loader, adapt))
        return spec


class _AdaptingLoader:
    """Loads a module as another loader does, adapts it, and leaves it to that loader."""

    def __init__(self, loader: "Loader", adapt: Callable[[Any], None]) -> None:
        self._loader = loader
        self._adapt = adapt

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, then adapt the module."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._adapt(module)
