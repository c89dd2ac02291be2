"""What the tests of every layer share."""

import importlib.util
from typing import Any

import hypothesis
import pytest

# A busy machine is slow, not wrong; a test that hangs has a deadline of its own.
hypothesis.settings.register_profile("tamed", deadline=None)
hypothesis.settings.load_profile("tamed")

WITHOUT_UVLOOP = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=WITHOUT_UVLOOP),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each async test on asyncio's own event loop and on uvloop."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend
