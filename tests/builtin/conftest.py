"""On which event loop the tests of the services in the box run, and whom they trust."""

from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.builtin.programs import Marked


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run an async test on asyncio's event loop, if it is not marked: `net`, below it, is tried on both."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture
def authority() -> trustme.CA:
    """Make an authority for certificates."""
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> Path:
    """Write the authority's own certificate."""
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    return pem


@pytest.fixture
def marked() -> Marked:
    """Return a mark for the programs of a test."""
    return Marked()
