"""Imports of a test's own files, which no other test is to see."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["forgetting_imports"]


@contextmanager
def forgetting_imports(folder: Path) -> Iterator[None]:
    """Forget at the end what was imported from this folder, and restore ``sys.path``.

    Other modules stay: whoever has taken a name from one would have another than those who import it later.
    """
    path, modules = sys.path.copy(), set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in sys.modules.keys() - modules:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
