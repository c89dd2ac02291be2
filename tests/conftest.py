"""What the tests of every layer share."""

import compileall
import gc
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tamed._os.secrets import SECRETS

# `make test-long` sets it: more examples, and what waits for a minute. A busy machine is slow, not wrong, so
# there is no deadline: a test that hangs has one of its own.
_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)
hypothesis.settings.register_profile("long", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(_PROFILE)

WITHOUT_UVLOOP = pytest.mark.skipif(
    importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"
)

# What pytest makes of the assertions in test files is kept. Otherwise each process of each run makes it anew,
# which takes twice as long as all the rest of collecting.
sys.dont_write_bytecode = False

# A signal that is ignored when a program begins is ignored in all that it starts, over exec too; one that
# has a handler is not. So tests start processes as a terminal would, also under `nohup`, cron, `&` in a
# script or a CI runner, while the run itself goes on ignoring. Two are left out: Python ignores them itself.
for _number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

_HERE = Path(__file__).parent

# To begin measuring takes a process a tenth of a second, twice what the command takes for all the rest. So
# coverage (`make coverage`) does not measure the processes of these tests: their own lines it sees, and what
# they start is measured by the tests of its own layer.
_IN_PROCESS_ONLY = [_HERE / part for part in ("builtin", "cli/test_new.py", "testing")]

# Here it runs the first case of each test, which goes through the same lines as the others,
_FIRST_CASES = [
    _HERE / part for part in ("process", "supervised", "twisted/test_tutorial.py", "twisted/test_twistd.py")
]

# and of these none: they take nearly half of the time, and go through next to no line that others do not.
_NOT_MEASURED = [
    _HERE / part
    for part in (
        "bench",
        "builtin/test_exec_processes.py",
        "builtin/test_portforward_clients.py",
        "builtin/test_relay.py",
        "builtin/test_rooted.py",
        "builtin/test_web_clients.py",
        "builtin/test_web_proxies.py",
        "chaos",
        "cli/test_grammar.py",
        "config/test_numbers.py",
        "docs",
        "examples",
        "export/test_yaml.py",
        "net/test_drain.py",
        "net/test_leaving.py",
        "net/test_protocol_server.py",
        "net/test_server.py",
        "plugins/test_values.py",
        "runner/test_message.py",
        "runner/test_roles.py",
        "security/test_application.py",
        "service/test_chaos.py",
        "structure",
        "supervised/test_checks.py",
        "supervised/test_descriptors.py",
        "supervised/test_events.py",
        "supervised/test_footprint.py",
        "supervised/test_in_the_way.py",
        "supervised/test_log.py",
        "supervised/test_log_places.py",
        "supervised/test_operations.py",
        "supervised/test_prometheus.py",
        "supervised/test_solo.py",
        "supervised/test_states.py",
        "supervised/test_story.py",
        "supervised/test_workers.py",
        "test_text.py",
        "testing/test_how_to.py",
        "twisted/test_failed_starts.py",
        "twisted/test_programs_of_others.py",
        "twisted/test_shipped_plugins.py",
        "twisted/test_workers.py",
        "worker/test_template.py",
    )
]

# Most of these tests have real processes, and wait for them.
_WAITING = [
    _HERE / part for part in ("chaos", "docs", "examples", "process", "security", "supervised", "twisted")
]


def _is_in(item: pytest.Item, parts: list[Path]) -> bool:
    return any(item.path.is_relative_to(part) for part in parts)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make coverage`, and that of what it leaves out."""
    parser.addoption("--for-coverage", action="store_true", help="run what coverage is measured by")
    parser.addoption("--beside-coverage", action="store_true", help="run the other tests")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the tests for coverage, or the others, and give each process of the run its share."""
    _choose(config, items)
    _share_out(items, getattr(config, "workerinput", {}).get("workercount", 1))


def _share_out(items: list[pytest.Item], count: int) -> None:
    """Order tests so that each of the equal parts that the processes take has its share of long ones first.

    Tests with real processes wait: if all were in one part, a processor would have nothing to do at the end.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    shares: list[list[pytest.Item]] = [[] for _ in range(count)]
    for file in sorted(files.values(), key=lambda file: (not _is_in(file[0], _WAITING), -len(file))):
        min(shares, key=len).extend(file)
    items[:] = chain.from_iterable(shares)


def _choose(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes long and shows no further lines, or run that alone."""
    is_rest = config.getoption("--beside-coverage")
    if not (is_rest or config.getoption("--for-coverage")):
        return
    seen: set[str] = set()
    left: list[pytest.Item] = []
    kept: list[pytest.Item] = []
    for item in items:
        name = item.nodeid.partition("[")[0]
        is_repeated = name in seen and _is_in(item, _FIRST_CASES)
        # Another user cannot write the figures, and would say so in the output that the test reads.
        is_of_others = "public_tamed" in getattr(item, "fixturenames", ())
        is_left = is_repeated or is_of_others or item.get_closest_marker("unmeasured") is not None
        (left if is_left or _is_in(item, _NOT_MEASURED) else kept).append(item)
        seen.add(name)
    items[:], deselected = (left, kept) if is_rest else (kept, left)
    config.hook.pytest_deselected(items=deselected)


def pytest_configure(config: pytest.Config) -> None:
    """Compile what tests execute once, or each process that they start does, as it may keep no bytecode."""
    package = importlib.util.find_spec("tamed")
    if not hasattr(config, "workerinput") and package is not None:
        for folder in (*(package.submodule_search_locations or ()), _HERE):
            compileall.compile_dir(folder, quiet=2)


def pytest_collection_finish() -> None:
    """Keep no bytecode of what tests write: it is known by a second, in which they write a file twice."""
    gc.freeze()  # or each collection of garbage would look through all tests again
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what takes long, unless it was asked for."""
    if _PROFILE != "long" and item.get_closest_marker("long") is not None:
        pytest.skip("takes long: make test-long")
    if "TAMED_TEST_SYSTEM" not in os.environ and item.get_closest_marker("system") is not None:
        pytest.skip("needs a system of its own: make test-system")


def pytest_xdist_auto_num_workers() -> int:
    """Begin three times as many as there are processors: tests with processes wait most of their time."""
    return 3 * len(os.sched_getaffinity(0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Have coverage measure the processes that a test starts, or not."""
    if not _is_in(item, _IN_PROCESS_ONLY):
        return (yield)
    taken = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("COVERAGE_")}
    try:
        return (yield)
    finally:
        os.environ.update(taken)


LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=WITHOUT_UVLOOP),
]


@pytest.fixture(scope="module", params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each async test on asyncio's own event loop and on uvloop."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked on both loops, where others of its folder take one."""
    if metafunc.definition.get_closest_marker("both_loops"):
        metafunc.parametrize("anyio_backend", LOOPS, scope="module")


@pytest.fixture
def public_path() -> Iterator[Path]:
    """Return an empty directory that all users can reach, unlike ``tmp_path``."""
    path = Path(tempfile.mkdtemp(prefix="tamed-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def _no_secrets() -> Iterator[None]:
    """Forget the secrets that a test has read: in the next one they would be hidden in all texts."""
    yield
    SECRETS.forget()
