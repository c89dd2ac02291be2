"""The folder and the environment of somebody who follows the pages."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import network as networks
from tests.supervised.conftest import tamed
from tests.supervised.daemon import Tamed

__all__ = ["tamed"]  # a fixture


@pytest.fixture
def environment(tamed: Tamed, tmp_path: Path) -> dict[str, str]:
    """Return the environment of somebody who has installed ``tamed``."""
    inherited = ("ARGS", "PYTEST", "MAKE", "MFLAGS", "PYTHON", "VIRTUAL_ENV")
    environment = {k: v for k, v in tamed.environment().items() if not k.startswith(inherited)}
    return environment | {
        "COLUMNS": "120",
        "HOME": str(tmp_path),
        "NO_COLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "TAMED_USER": "root",  # else each log begins with a warning
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def network() -> Iterator[list[str]]:
    """Return the command that runs another one where no other test uses a port: pages name fixed ones.

    The pages share it: at the end of each, all that it has started ends.
    """
    with networks.network() as command:
        yield command
