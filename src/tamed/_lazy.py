"""Faces that load what is behind them only when it is asked for (PEP 562).

The supervisor is a small process, and uses the same layers as everything else. Were it to load all that a
layer has when it needs one name of it, it would have an event loop, a logging system and a TLS library for
nothing.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module

__all__ = ["lazy_face"]


def lazy_face(face: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package: a name is loaded from the module that ``homes`` says.

    A module whose name begins with a dot is inside the package. A name is loaded once.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {face!r} has no attribute {name!r}")
        with _no_collection():
            value: object = getattr(import_module(homes[name], face), name)
        setattr(sys.modules[face], name, value)
        return value

    return load


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let nothing look for garbage meanwhile.

    What modules are made of stays: looking through it again and again, as it grows, slows a start down.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
