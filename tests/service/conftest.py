"""What the tests of services share."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.stand_ins import Diary


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run an async test on asyncio's event loop: services ask one for tasks and timers alone."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture
def diary() -> Diary:
    """Return the list into which a test's services write what is called."""
    return Diary()


@pytest.fixture(autouse=True)
def nothing_is_lost(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test after which asyncio finds an exception that nobody saw, or a task that nobody held."""
    gc.freeze()  # what is there already is nobody's here, and need not be looked through
    yield
    gc.collect()
    gc.unfreeze()
    lost = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
    assert lost == []
