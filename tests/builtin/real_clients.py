"""Programs of others as clients."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.patience import PATIENCE


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test whose client is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a client to its end."""
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
