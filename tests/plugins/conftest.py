"""Fixtures for the tests of discovery: a place to install distributions, and a plugin folder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins._site import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Make a site whose distributions come before all that are really installed."""
    before = set(sys.modules)
    made = Site(tmp_path / "site")
    monkeypatch.syspath_prepend(made.folder)
    yield made
    for module in set(sys.modules) - before:
        if (getattr(sys.modules[module], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[module]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make an empty plugin folder."""
    made = tmp_path / "plugins"
    made.mkdir()
    return made
