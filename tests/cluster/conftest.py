"""On which event loop the tests of the engines run."""

from typing import Any

import pytest


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run an async test on asyncio's event loop, if it is not marked: what all engines promise is."""
    return "asyncio", {"use_uvloop": False}
