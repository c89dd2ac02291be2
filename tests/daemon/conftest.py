"""What the tests of this layer share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def public_path() -> Iterator[Path]:
    """Return an empty directory that all users can reach, unlike ``tmp_path``."""
    path = Path(tempfile.mkdtemp(prefix="tamed-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
