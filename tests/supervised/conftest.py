"""Fixtures of the tests with real daemons."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervised import opened
from tests.supervised.daemon import Tamed


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
    before = [sys.executable, opened.__file__] if os.geteuid() == 0 and opened.closed_directory() else []
    made = Tamed(folder, before=before)
    yield made
    made.close()
    shutil.rmtree(folder)
