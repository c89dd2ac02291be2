"""What the tests of every layer share."""

import importlib.util
import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A busy machine is slow, not wrong; a test that hangs has a deadline of its own.
hypothesis.settings.register_profile("tamed", deadline=None)
hypothesis.settings.load_profile("tamed")

WITHOUT_UVLOOP = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
)

# Bytecode is known by the second in which its source was written, and tests write a file twice in one.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

# A signal that is ignored when a program begins is ignored in all that it starts, over exec too; one that
# has a handler is not. So tests start processes as a terminal would, also under `nohup`, cron, `&` in a
# script or a CI runner, while the run itself goes on ignoring. Two are left out: Python ignores them itself.
for _number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

_HERE = Path(__file__).parent

# To begin measuring takes a process a tenth of a second, twice what the command takes for all the rest. What
# these tests start is measured by the tests of its own layer.
_UNMEASURED = [
    _HERE / part
    for part in (
        "bench",
        "builtin",
        "cli/test_new.py",
        "examples",
        "testing",
        "twisted/test_failed_starts.py",
        "twisted/test_programs_of_others.py",
        "twisted/test_shipped_plugins.py",
        "twisted/test_workers.py",
    )
]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Have coverage measure the processes that a test starts, or not."""
    marked = item.get_closest_marker("unmeasured") is not None
    # Another user cannot write the figures, and would say so in the output that the test reads.
    marked = marked or "public_tamed" in getattr(item, "fixturenames", ())
    if not marked and not any(item.path.is_relative_to(part) for part in _UNMEASURED):
        return (yield)
    taken = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("COVERAGE_")}
    try:
        return (yield)
    finally:
        os.environ.update(taken)


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
