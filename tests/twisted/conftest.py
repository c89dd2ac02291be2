"""What the tests of the bridge to Twisted share: real daemons."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervised.conftest import public_tamed
from tests.supervised.daemon import Tamed

__all__ = ["public_tamed"]


@pytest.fixture
def tamed(tmp_path: Path) -> Iterator[Tamed]:
    """The command, with its own run directory; no process of it outlives the test."""
    made = Tamed(tmp_path, loaded="twisted")
    yield made
    made.close()
