"""Distributions and plugin folders, as the tests of discovery make them."""

import importlib
from pathlib import Path

SOURCE = '''
from dataclasses import dataclass
from tamed.plugins.option import option
from tamed.plugins.plugin import plugin
from tamed.service.service import Service

@dataclass
class Options:
    port: int = option(1, "The port.")

@plugin(name="{name}")
def make(options: Options) -> Service:
    """A {name} of {origin}."""
    return Service("{name}")
'''


def source(name: str, origin: str = "nowhere") -> str:
    """Return the source of a module with a plugin of this name, which is its variable ``make``."""
    return SOURCE.format(name=name, origin=origin)


class Site:
    """A folder on ``sys.path`` in which distributions are installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def module(self, name: str, text: str) -> None:
        """Write a module."""
        (self.folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    def distribution(self, name: str, entry_points: str | bytes, *, version: str = "1.0") -> Path:
        """Write a distribution's metadata; ``entry_points`` is the content of the group, or a whole file."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if isinstance(entry_points, str):
            entry_points = f"[tamed.plugins]\n{entry_points}\n".encode()
        (info / "entry_points.txt").write_bytes(entry_points)
        importlib.invalidate_caches()
        return info

    def plugin(self, name: str, *, distribution: str, version: str = "1.0") -> None:
        """Install a distribution with one plugin."""
        module = f"{distribution}_{name}".replace("-", "_")
        self.module(module, source(name, distribution))
        self.distribution(distribution, f"{name} = {module}:make", version=version)
