"""Fixtures of the tests with real daemons."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervised.daemon import Tamed
from tests.supervised.opened import OPENED


@pytest.fixture
def tamed(tmp_path: Path) -> Iterator[Tamed]:
    """The command, with its own run directory; no process of it outlives the test."""
    made = Tamed(tmp_path)
    yield made
    made.close()


@pytest.fixture
def public_tamed() -> Iterator[Tamed]:
    """The command in a folder that all users can reach; as root, the interpreter is reachable, too."""
    folder = Path(tempfile.mkdtemp(prefix="tamed-test-"))
    folder.chmod(0o755)
    made = Tamed(folder, before=OPENED)
    yield made
    made.close()
    shutil.rmtree(folder)
