"""What the tests of the bridge to Twisted share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervised.daemon import Tamed


@pytest.fixture
def tamed(tmp_path: Path) -> Iterator[Tamed]:
    """The command, with a run directory of its own."""
    made = Tamed(tmp_path)
    try:
        yield made
    finally:
        made.close()
